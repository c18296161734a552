"""`robustgen attack`: how easily is a model fooled?"""

from __future__ import annotations

import math
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen.attacks import ATTACKS
from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.attack_adaptive import NAMES, attack_guard, check_idle
from robustgen_cli.attack_table import curve, rows
from robustgen_cli.loading import load_named
from robustgen_cli.parameters import settings
from robustgen_cli.purify import Oblivious, Purify, check_purify, load_purified

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
            autocompletion=o.among((*ATTACKS, *NAMES)),
            show_default=False,
        ),
    ],
    data: o.Data,
    model: o.OptionalModel = None,
    guard: Annotated[
        Path | None,
        typer.Option("--guard", help="With 'adaptive': a directory made by 'robustgen guard'.", show_default=False),
    ] = None,
    purify: Purify = None,
    purify_oblivious: Oblivious = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle",
            help="With 'adaptive': standard or strong (or adaptive-standard, adaptive-strong).",
            autocompletion=o.among(("standard", "strong")),
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="With 'adaptive': these of its attacks alone, NAME,...; may be repeated.",
        ),
    ] = None,
    eps: o.Eps = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Directory for results, per-sample arrays and adversarial inputs.", show_default=False
        ),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            "--norm",
            help="How the change is measured: linf, l2, l1 or l0 (how many values change); by default the attack's "
            "usual one.",
            autocompletion=o.among(("linf", "l2", "l1", "l0")),
            show_default=False,
        ),
    ] = None,
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
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            help="When an input is done: evaluate = at its first success; max-loss, minimal or last = after all steps, "
            "where the attack has them.",
            show_default=False,
        ),
    ] = None,
    eot: Annotated[
        int | None,
        typer.Option(
            "--eot",
            min=1,
            help="Draws that every pass averages, for models that are random; with 'adaptive' those of its bundle if "
            "left out.",
            show_default="1",
        ),
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            "--screen",
            help="With 'adaptive': leave out inputs that Auto-Attack on the classifier alone does not fool, and count "
            "them as held. Beside a classifier that was trained against attacks that is several times as fast.",
        ),
    ] = False,
    precision: o.Precision = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model: pays for long attacks.")] = False,
    quantise: Annotated[
        str | None,
        typer.Option(
            "--quantise",
            metavar="uint8",
            help="Round adversarial inputs to 256 levels, as an image file does, and judge them after that.",
            autocompletion=o.among(("uint8",)),
            show_default=False,
        ),
    ] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose/--no-diagnose", help="Check on a few inputs whether the result can be believed.")
    ] = True,
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

    The attack 'adaptive' takes --guard: classifier and detectors are attacked together. With --purify, any other attack
    goes through a detector that rebuilds the inputs; robust accuracy is then that of both against it.

    Example: robustgen attack pgd --model victim/ --data fashion-mnist --eps 8/255 --norm linf --out run/
    """
    from robustgen import runtime
    from robustgen.artifacts import check_free, staged
    from robustgen.attacks.build import aimed, declared, kind_of, make
    from robustgen.evaluation import robustness
    from robustgen.evaluation.purification import masked_gradients, oblivious
    from robustgen.evaluation.select import data_for, label_doubts, threat_on, whole_box
    from robustgen.evaluation.summary import configuration
    from robustgen.threat import ThreatModel

    check_purify(purify, purify_oblivious)
    if name in NAMES:
        if purify is not None:
            raise UsageError(f"{name} attacks a guard, which rebuilds no input: leave --purify to the other attacks")
        if model is not None:
            raise UsageError(f"{name} attacks a guard, which holds its model: leave --model out")
        idle = {
            "--steps": steps, "--step-size": step_size, "--restarts": restarts, "--random-start": random_start,
            "--loss": loss, "--targeted": targeted, "--mode": mode, "--compile": compile or None,
            "--param": param or None,
            "--weights": weights, "--mean": mean, "--std": std, "--trust": trust or None,
        }  # fmt: skip
        check_idle(name, idle)
        attack_guard(
            name, guard, data, eps, norm=norm, bundle=bundle, only=only, draws=eot, rounded=_rounded(quantise), out=out,
            split=split, limit=limit, size=size, device=device, seed=seed, batch_size=batch_size,
            precision=precision, screen=screen, diagnose=diagnose, json=json, quiet=quiet, force=force,
        )  # fmt: skip
        return
    eot = eot or 1
    if screen:
        raise UsageError(f"--screen is for adaptive, which attacks a guard: leave it out of {name}")
    if model is None or guard is not None or bundle is not None or only:
        raise UsageError(f"{name} attacks a model: give --model, and leave --guard, --bundle and --only to adaptive")
    # all that can be checked before anything is loaded
    if out is not None:
        check_free(out, force)
    where = runtime.device(device)
    o.precision_on(precision, where, quiet)
    runtime.keep_freed_memory()
    kind = kind_of(name)
    norm = norm or kind.norms[0]
    given = {"steps": steps, "step_size": step_size, "restarts": restarts, "random_start": random_start}
    pairs = [*(param or []), *([] if mode is None else [f"mode={mode}"])]
    elsewhere = ("seed", "batch_size", "eot", "precision", "compile")
    options = settings(name, declared(name), given, pairs, elsewhere)
    options |= aimed(name, loss, targeted is not None) | {"seed": seed, "batch_size": batch_size}
    options |= {"eot": eot, "precision": precision, "compile": compile}
    target = None if targeted is None else robustness.choose_target(targeted)
    rounded = _rounded(quantise)
    if eps is None and not kind.minimal and not kind.whole_box:
        raise UsageError(f"{name} needs the size of the change allowed: give --eps, such as 8/255, or 0:0.3:16")
    make(name, ThreatModel(norm, 0.0 if eps is None else eps[-1]), options)  # type: ignore[arg-type]  # checked there

    loaded = load_named(model, weights, mean, std, trust)
    loaded, purified, purifier_sha256 = load_purified(purify, loaded)
    source, part = data_for(data, loaded, split, size=size)
    victim = loaded.network
    if purified is not None:
        purified.check(source.spec)
        victim = purified
    largest = whole_box(source.spec, norm) if eps is None else eps[-1]
    if not math.isfinite(largest):
        raise UsageError(f"{source.spec.name!r} has values without bounds: give --eps, the largest change to look for")
    chosen = make(name, threat_on(source.spec, norm, largest), options)
    grid = eps if eps is not None and (len(eps) > 1 or not kind.minimal) else None
    total = len(source.rows(part)[:limit])
    key = robustness.fingerprint(
        command="attack",
        name=name,
        attack=configuration(chosen),
        eps=grid,
        rounded=rounded,
        model=loaded.sha256,
        purifier=purifier_sha256,
        code=_code_digest(model),
        data=source.spec.sha256,
        split=part,
        limit=limit,
        targeted=targeted,
        device=str(where),
    )
    size_given = "any eps" if eps is None else f"eps {_range(eps)}"
    with nullcontext() if out is None else staged(out, force, key) as directory:
        with output.counting(f"{name} {norm} {size_given}", total, quiet) as progress:
            found = robustness.evaluate_attack(
                name,
                chosen,
                victim,
                source,
                eps=grid,
                split=part,
                limit=limit,
                target=target,
                rounded=rounded,
                diagnose=False,
                device=where,
                directory=directory,
                progress=progress,
            )
        if diagnose:
            with output.stages(quiet) as stage:
                found = robustness.examined(
                    found,
                    chosen,
                    victim,
                    source,
                    device=where,
                    told=lambda check, share: stage(f"checking the result: {check}", share),
                )
        summary = found.summary | {"model": loaded.origin, "model_sha256": loaded.sha256}
        summary["warnings"] = label_doubts(loaded, source.spec) + summary["warnings"]
        summary["purifier"] = None
        if purified is not None:
            summary["purifier"] = {"detector": purified.name, "sha256": purifier_sha256, "oblivious": None}
            if purify_oblivious is not False:
                with output.counting(f"{name} on the bare classifier", total, quiet) as progress:
                    bare = oblivious(
                        chosen, purified, source, source.spread(part, limit), target=target, rounded=rounded,
                        device=where, progress=progress,
                    )  # fmt: skip
                summary["purifier"]["oblivious"] = bare.to_json()
                summary["warnings"] += masked_gradients(bare, found.robust_accuracy)
        if directory is not None:
            _write(directory, found, summary, source)
    output.warn_skipped(source.skipped, quiet)
    output.warn(summary["warnings"], quiet)
    if json:
        output.emit(summary)
        return
    through = "" if purified is None else f" behind {purified.name}"
    title = f"{name} on {loaded.origin}{through}: {norm}, {size_given}, {summary['n']} inputs of {source.spec.name}"
    output.table(title, ("", "value", "95 % interval"), rows(found, summary))
    if len(summary["curve"]) > 1:
        output.table("robust accuracy against eps", ("eps", "value", "95 % interval"), curve(summary["curve"]))
    if out is not None:
        output.facts([("results", str(out))])


def _rounded(quantise: str | None) -> bool:
    """Whether results are rounded. Raises `UsageError` for levels that are not known."""
    if quantise not in (None, "uint8"):
        raise UsageError(suggestion(quantise, ("uint8",), "form to round to"))
    return quantise is not None


def _range(eps: tuple[float, ...]) -> str:
    return f"{eps[0]:.4g}" if len(eps) == 1 else f"{eps[0]:.4g} to {eps[-1]:.4g}"


def _code_digest(model: str) -> str | None:
    """Of the file with the user's own network: an interrupted run does not go on with another one."""
    from robustgen.artifacts import digest

    file = Path(model.rpartition(":")[0])
    return digest(file.read_bytes()) if file.suffix == ".py" else None


def _write(directory: Path, found: Robustness, summary: dict[str, Any], source: Source) -> None:
    from robustgen.artifacts import RESULTS, to_json
    from robustgen.evaluation.blocks import write_samples
    from robustgen.report.attack_page import save_report
    from robustgen.report.examples import save_examples

    save_examples(directory, source)
    write_samples(directory, found.samples)
    command = shlex.join(["robustgen", *sys.argv[1:]])
    save_report(directory, summary | {"command": command}, found.samples, source)
    (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
