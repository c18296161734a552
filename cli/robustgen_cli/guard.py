"""`robustgen guard`: a classifier that rejects what its detectors find suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_named

if TYPE_CHECKING:
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.models.load import LoadedModel


PRESETS = ("fast", "default", "best")


def register(app: typer.Typer) -> None:
    app.command("guard")(guard)


def guard(
    model: o.Model,
    data: o.Data,
    out: o.Out,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            "--detector",
            metavar="[CHANNEL=]DETECTOR",
            help="A directory made by fit, and the channel it belongs to, such as adversarial=gat/; may be repeated. "
            "Without any, the default guard is fitted.",
            show_default=False,
        ),
    ] = None,
    fpr: Annotated[
        float,
        typer.Option("--fpr", parser=o.number, metavar="RATE", help="The share of normal inputs that may be rejected."),
    ] = 0.05,
    within: Annotated[
        str,
        typer.Option(
            "--within",
            help="How the p-values of a channel's detectors are combined: fisher, smallest, cauchy, harmonic or "
            "weighted.",
            autocompletion=o.among(("fisher", "smallest", "cauchy", "harmonic", "weighted")),
        ),
    ] = "fisher",
    across: Annotated[
        str,
        typer.Option(
            "--across",
            help="How channels are: or rejects what one of them alone finds suspicious enough.",
            autocompletion=o.among(("or", "fisher", "smallest", "cauchy", "harmonic", "weighted")),
        ),
    ] = "or",
    share: Annotated[
        list[str] | None,
        typer.Option(
            "--share",
            metavar="CHANNEL=PART",
            help="What part of the false alarms a channel may cause, with --across or: for example --share "
            "perturbed=1 --share adversarial=3 for more security and less coverage. By default all the same, and those "
            "of the default guard 0.3 and 0.7.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="fast|default|best",
            help="How long the default guard is trained; best trains three discriminators against attackers.",
            autocompletion=o.among(PRESETS),
            show_default="default",
        ),
    ] = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    size: o.Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Put a classifier and calibrated detectors together as one system that classifies an input or rejects it.

    Detectors are brought to p-values on half of the calibration inputs and combined; the other half sets the
    threshold, so that at most the given share of normal inputs is rejected. Detectors of one channel look for the same
    thing; a verdict names the channels that reject. Several detectors catch what each would miss of attacks that do
    not know them; against an attacker who does, only a detector trained for that helps (gat).

    A killed run goes on where it stopped when the same command is given again.

    Example: robustgen guard --model victim/ --data fashion-mnist --out guard/
    """
    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, staged, to_json
    from robustgen.data.load import load
    from robustgen.errors import UsageError
    from robustgen.evaluation.robustness import fingerprint
    from robustgen.guard import Guard
    from robustgen.guard.combine import Combine, in_order
    from robustgen.guard.default import SHARES, fit_members, members
    from robustgen.registry import suggestion

    check_free(out, force)
    where = runtime.device(device)
    if detector is not None and preset is not None:
        raise UsageError("--preset says how long the default guard is trained: leave it out beside --detector")
    if preset not in (None, *PRESETS):
        raise UsageError(suggestion(str(preset), PRESETS, "preset"))
    for how in (within, across):
        Combine(how, 1)  # what does not exist is said now
    loaded, source = load_named(model, weights, mean, std, trust), load(data, size=size)
    given = None if detector is None else _named(detector)
    wanted = members(source.spec, preset or "default", seed) if given is None else None
    shares: Mapping[str, float] | None = SHARES if wanted is not None and across == "or" else None
    if share is not None:
        shares = _shares(share)
    if shares is not None:  # what is wrong with them is said now
        channels = list(given or wanted or ())
        Combine(across, len(channels), in_order(shares, channels))
    key = fingerprint(
        command="guard",
        detectors=detector,
        members=wanted,
        model=loaded.sha256,
        data=source.spec.sha256,
        device=str(where),
    )
    with staged(out, force, key, keep=_FITTED) as directory:
        if wanted is None:
            assert given is not None
            grouped: dict[str, list[CalibratedDetector]] = {
                name: [_load(path, loaded) for path in paths] for name, paths in given.items()
            }
        else:
            with output.stages(quiet) as stage:
                grouped = fit_members(
                    wanted, loaded, source, folder=directory / _FITTED, device=where, told=stage, fpr=fpr
                )
        for fitted in (one for parts in grouped.values() for one in parts):
            if fitted.spec.shape != source.spec.shape:
                raise UsageError(
                    f"{fitted.name} judges inputs of shape {fitted.spec.shape}, and those of {source.spec.name!r} have "
                    f"{source.spec.shape}: give the data it was fitted on"
                )
        made = Guard(loaded, grouped, within=within, across=across, shares=shares).to(where)
        n = len(source.rows("calibration"))
        with output.counting("calibrating the guard", n, quiet) as progress:
            made.calibrate(source, fpr, progress)
        made.save(directory)
        if wanted is not None:
            _clear(directory / _FITTED)
        summary = made.summary()
        (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
    output.warn_skipped(source.skipped, quiet)
    if json:
        output.emit(summary)
        return
    threshold = made.threshold
    output.facts(
        [
            ("guard", f"{loaded.origin} with {made.name}"),
            *(
                (f"channel {name}", f" {within} ".join(m.name for m in part.everyone))
                for name, part in made.parts.items()
            ),
            (
                "threshold",
                f"{threshold.value:.6g} from {threshold.n_calibration} inputs: rejects at most {fpr:.2%} of normal "
                "ones in expectation",
            ),
            ("saved in", str(out)),
        ]
    )


_FITTED = "fitted"


def _named(detectors: list[str]) -> dict[str, list[Path]]:
    """Paths by channel; those without a channel share one."""
    from robustgen.guard.given import ALONE

    grouped: dict[str, list[Path]] = {}
    for entry in detectors:
        channel, equals, path = entry.partition("=")
        grouped.setdefault(channel if equals else ALONE, []).append(Path(path if equals else entry))
    return grouped


def _shares(given: list[str]) -> dict[str, float]:
    from robustgen.errors import UsageError

    found = {}
    for entry in given:
        channel, _, part = entry.partition("=")
        try:
            found[channel] = o.number(part)
        except typer.BadParameter as error:
            raise UsageError(f"a share is written CHANNEL=PART, but {entry!r} came") from error
    return found


def _load(path: Path, model: LoadedModel) -> CalibratedDetector:
    """A detector, seen through the guard's classifier where it was fitted with one."""
    from robustgen.artifacts import read_artifact
    from robustgen.detectors.calibrated import CalibratedDetector

    through = read_artifact(path, "detector").config.get("model") is not None
    return CalibratedDetector.load(path, model if through else None)


def _clear(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
