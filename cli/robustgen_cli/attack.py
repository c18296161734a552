"""`robustgen attack`: how easily is a model fooled?"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen.attacks import ATTACKS
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_named
from robustgen_cli.parameters import settings

if TYPE_CHECKING:
    from robustgen.data.source import Source
    from robustgen.evaluation.robustness import Robustness


def register(app: typer.Typer) -> None:
    app.command("attack")(attack)


def attack(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ATTACK",
            help="One of 'robustgen list attacks'.",
            autocompletion=o.among(ATTACKS),
            show_default=False,
        ),
    ],
    model: o.Model,
    data: o.Data,
    eps: o.Eps,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Directory for results, per-sample arrays and adversarial inputs.", show_default=False
        ),
    ] = None,
    norm: o.Norm = "linf",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Gradient steps, for attacks that take several.")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option("--step-size", parser=o.number, metavar="NUMBER", help="In input units.")
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option("--restarts", min=1, help="Tries from other random starts, for inputs that still hold."),
    ] = None,
    random_start: Annotated[
        bool | None,
        typer.Option("--random-start/--no-random-start", help="Begin at a random legal point.", show_default=False),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="What is maximised: cross-entropy, margin or dlr; the attack's own if left out.",
            autocompletion=o.among(("cross-entropy", "margin", "dlr")),
            show_default=False,
        ),
    ] = None,
    targeted: Annotated[
        str | None,
        typer.Option(
            "--targeted",
            metavar="TARGET",
            help="Aim at a class: a number, next (label + 1), or least-likely.",
            autocompletion=o.among(("next", "least-likely")),
            show_default=False,
        ),
    ] = None,
    param: o.Params = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="Which inputs: test, train, calibration, all; auto = test, or all if the model cannot have been "
            "trained on them.",
            autocompletion=o.among(("auto", "test", "train", "calibration", "all")),
        ),
    ] = "auto",
    limit: o.Limit = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    size: o.Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.AutoBatchSize = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Attack a model on data: robust accuracy with its interval, success rate, norms, passes, time, per-sample results.

    A killed run with --out goes on where it stopped when the same command is given again.

    Example: robustgen attack pgd --model victim/ --data fashion-mnist --eps 8/255 --norm linf --out run/
    """
    from robustgen import runtime
    from robustgen.artifacts import check_free, staged
    from robustgen.attacks.build import aimed, make
    from robustgen.evaluation import robustness
    from robustgen.evaluation.select import data_for, label_doubts, threat_on
    from robustgen.registry import resolve
    from robustgen.threat import ThreatModel

    # all that can be checked before anything is loaded
    if out is not None:
        check_free(out, force)
    where = runtime.device(device)
    given = {"steps": steps, "step_size": step_size, "restarts": restarts, "random_start": random_start}
    options = settings(name, resolve(ATTACKS, name, "attack"), given, param, elsewhere=("seed", "batch_size"))
    options |= aimed(name, loss, targeted is not None) | {"seed": seed, "batch_size": batch_size}
    target = None if targeted is None else robustness.choose_target(targeted)
    make(name, ThreatModel(norm, eps), options)  # type: ignore[arg-type]  # ThreatModel checks the norm itself

    loaded = load_named(model, weights, mean, std, trust)
    source, part = data_for(data, loaded, split, size=size)
    chosen = make(name, threat_on(source.spec, norm, eps), options)
    total = len(source.rows(part)[:limit])
    key = robustness.fingerprint(
        command="attack",
        name=name,
        attack=robustness.configuration(chosen),
        model=loaded.sha256,
        code=_code_digest(model),
        data=source.spec.sha256,
        split=part,
        limit=limit,
        targeted=targeted,
        device=str(where),
    )
    with nullcontext() if out is None else staged(out, force, key) as directory:
        with output.counting(f"{name} {norm} eps={eps:g}", total, quiet) as progress:
            found = robustness.evaluate_attack(
                name,
                chosen,
                loaded.network,
                source,
                split=part,
                limit=limit,
                target=target,
                device=where,
                directory=directory,
                progress=progress,
            )
        summary = found.summary | {"model": loaded.origin, "model_sha256": loaded.sha256}
        summary["warnings"] = label_doubts(loaded, source.spec) + summary["warnings"]
        if directory is not None:
            _write(directory, found, summary, source)
    output.warn_skipped(source.skipped, quiet)
    output.warn(summary["warnings"], quiet)
    if json:
        output.emit(summary)
        return
    title = f"{name} on {loaded.origin}: {norm}, eps {eps:g}, {summary['n']} inputs of {source.spec.name}"
    output.table(title, ("", "value", "95 % interval"), _rows(found, summary))
    if out is not None:
        output.facts([("results", str(out))])


def _code_digest(model: str) -> str | None:
    """Of the file with the user's own network: an interrupted run does not go on with another one."""
    from robustgen.artifacts import digest

    file = Path(model.rpartition(":")[0])
    return digest(file.read_bytes()) if file.suffix == ".py" else None


def _write(directory: Path, found: Robustness, summary: dict[str, Any], source: Source) -> None:
    from robustgen.artifacts import RESULTS, to_json
    from robustgen.evaluation.blocks import write_samples
    from robustgen.report.examples import save_examples

    save_examples(directory, source)
    write_samples(directory, found.samples)
    (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")


def _rows(found: Robustness, summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    def share(label: str, estimate: Any) -> tuple[str, str, str]:
        return (
            (label, "-", "-")
            if estimate is None
            else (label, f"{estimate.value:.2%}", f"{estimate.low:.2%} to {estimate.high:.2%}")
        )

    norms = [
        (f"median {norm} of successes", f"{size['median']:.4g}", f"largest {size['max']:.4g}")
        for norm, size in summary["norms"].items()
        if size
    ]
    return [
        share("clean accuracy", found.clean_accuracy),
        share("robust accuracy", found.robust_accuracy),
        share("attack success rate", found.success_rate),
        *norms,
        ("forward / backward passes", f"{summary['forward_passes']} / {summary['backward_passes']}", ""),
        ("seconds", f"{summary['seconds']:.1f}", ""),
    ]
