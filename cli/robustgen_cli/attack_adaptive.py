"""`robustgen attack adaptive --guard G`: how often does an attacker who knows the detector get through?"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from robustgen.errors import UsageError
from robustgen_cli import options, output

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from robustgen.attacks.passes import Precision
    from robustgen.data.source import Batch, Source
    from robustgen.evaluation.adaptive import Evasion
    from robustgen.evaluation.bundles import Bundle
    from robustgen.evaluation.screening import Alone
    from robustgen.guard import Guard
    from robustgen.threat import ThreatModel

    Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]

NAMES = ("adaptive", "adaptive-standard", "adaptive-strong")
_BLOCK = 128  # inputs: what is lost when a run is killed
_SCREENING = 0.2  # of the progress, where the classifier alone is attacked first
_CHECKED = 40  # inputs of the masking checks
_FORM = 5  # of a stored block: a run that another form left half done begins anew
_SMALLEST = ["carlini-wagner"]  # asked for alone, it gives the whole curve of success against eps


@dataclass(frozen=True, eq=False)
class _Siege:
    """A guard, and all that decides how its inputs are attacked. `rounded`: whether inputs are handed in as images.
    `screen`: whether what the classifier holds on its own is left out.
    """

    guard: Guard
    threat: ThreatModel
    name: str
    bundle: Bundle
    only: list[str] | None
    pool: Tensor
    rounded: bool
    seed: int
    batch_size: int | None
    precision: Precision
    screen: bool

    @property
    def smallest(self) -> bool:
        """Whether the nearest successes are looked for, not the first."""
        return self.only == _SMALLEST


def check_idle(name: str, given: Mapping[str, object]) -> None:
    """Raise `UsageError` for options that came, not None, although they say nothing of an attack on a guard."""
    idle = [option for option, value in given.items() if value is not None]
    if idle:
        raise UsageError(
            f"{name} takes no {' and no '.join(idle)}: its bundle says what its attacks do (--bundle, --only, --eot), "
            "and the guard holds its model; leave that out"
        )


def attack_guard(
    name: str,
    guard: Path | None,
    data: str,
    eps: tuple[float, ...] | None,
    *,
    norm: str | None,
    bundle: str | None,
    only: list[str] | None,
    draws: int | None,
    rounded: bool,
    out: Path | None,
    split: str,
    limit: int | None,
    size: tuple[int, int] | None,
    device: str,
    seed: int,
    batch_size: int | None,
    precision: str,
    screen: bool,
    diagnose: bool,
    json: bool,
    quiet: bool,
    force: bool,
) -> None:
    """Attack a guard's classifier and detectors together, block by block, and print what became of the inputs."""
    from robustgen import runtime
    from robustgen.artifacts import check_free, read_artifact, staged
    from robustgen.evaluation.bundles import BUNDLES, check_norm, check_precision
    from robustgen.evaluation.quantise import check_box
    from robustgen.evaluation.robustness import fingerprint
    from robustgen.evaluation.select import data_for, threat_on
    from robustgen.guard import Guard

    if guard is None:
        raise UsageError(f"{name} attacks a guard: give --guard, a directory made by 'robustgen guard'")
    if eps is None or len(eps) != 1:
        raise UsageError(f"{name} needs the size of the change allowed, one number: give --eps, such as 0.1 or 8/255")
    chosen = f"adaptive-{(bundle or 'standard').removeprefix('adaptive-')}" if name == "adaptive" else name
    if chosen not in NAMES[1:] or (bundle is not None and name != "adaptive"):
        raise UsageError(f"--bundle is standard or strong, of the attack adaptive, but {bundle!r} came with {name}")
    check_norm(norm or "linf")
    check_precision(precision)
    if out is not None:
        check_free(out, force)
    where = runtime.device(device)
    searched = options.precision_on(precision, where, quiet)
    runtime.keep_freed_memory()
    loaded = Guard.load(guard).to(where)
    source, part = data_for(data, loaded.loaded, split, size=size)
    if screen and loaded.random_classifier:
        raise UsageError(
            "--screen leaves out what Auto-Attack on the classifier alone does not fool, and this classifier draws "
            "random numbers, of which Auto-Attack sees one draw at a time: leave --screen out"
        )
    threat = threat_on(source.spec, norm or "linf", eps[0])
    if rounded:
        check_box(threat)
    whole = BUNDLES[chosen]
    spend = whole if draws is None else replace(whole, draws=draws)
    rows = source.spread(part, limit)
    members = None if not only else [each.strip() for names in only for each in names.split(",")]
    key = fingerprint(
        command="attack adaptive",
        form=_FORM,
        bundle=chosen,
        draws=spend.draws,
        rounded=rounded,
        only=members,
        guard=read_artifact(guard).sha256,
        norm=threat.norm,
        eps=threat.eps,
        data=source.spec.sha256,
        split=part,
        limit=limit,
        seed=seed,
        device=str(where),
        precision=searched,
        screen=screen,
    )
    pool = source.read(source.spread("calibration", 2000)).x.to(where)
    siege = _Siege(loaded, threat, chosen, spend, members, pool, rounded, seed, batch_size, searched, screen)
    if draws is not None and not loaded.random:
        output.warn([f"--eot {draws} changes nothing: this guard answers the same input always alike"], quiet)
    with nullcontext() if out is None else staged(out, force, key) as directory:
        with output.counting(f"{chosen} {threat.norm} eps {threat.eps:.4g}", len(rows), quiet) as progress:
            samples, names = _attacked(siege, source, rows, directory, progress)
        summary = _summary(siege, source.spec.name, samples, names)
        summary["checks"] = _checked(siege, source, rows, samples, quiet) if diagnose else []
        if directory is not None:
            _write(directory, samples, summary, source)
    output.warn_skipped(source.skipped, quiet)
    failed = [check for check in summary["checks"] if check["passed"] is False]
    output.warn([f"{check['name']}: {check['found']}: {check['means']}" for check in failed], quiet)
    if json:
        output.emit(summary)
        return
    title = f"{chosen} on {guard}: {threat.norm}, eps {threat.eps:.4g}, {summary['n']} inputs of {source.spec.name}"
    _print(title, summary)
    if out is not None:
        output.facts([("results", str(out))])


def _attacked(
    siege: _Siege,
    source: Source,
    rows: np.ndarray[Any, Any],
    directory: Path | None,
    progress: Callable[[float], None],
) -> tuple[Arrays, list[str]]:
    """The arrays of all inputs, and the names of the attacks; blocks that `directory` holds are not attacked again."""
    import numpy as np

    from robustgen.artifacts import write_atomically
    from robustgen.evaluation.blocks import read_block, write_block

    blocks: list[Arrays] = []
    for number, start in enumerate(range(0, len(rows), _BLOCK)):
        path = None if directory is None else directory / f"block-{number:05d}.npz"
        if path is not None and path.is_file():
            done = read_block(path)
            progress(len(done["index"]))
        else:
            batch = source.read(rows[start : start + _BLOCK]).to(siege.guard.device)
            done = _block(siege, batch, progress)
            if path is not None:
                write_atomically(path, partial(write_block, arrays=done))
        blocks.append({key: value for key, value in done.items() if key != "x_adv"})
    names: list[str] = blocks[0]["members"].tolist()
    kept = [key for key in blocks[0] if key != "members"]
    return {key: np.concatenate([block[key] for block in blocks]) for key in kept}, names


def _block(siege: _Siege, batch: Batch, progress: Callable[[float], None]) -> Arrays:
    """The arrays of one block."""
    import numpy as np
    import torch

    from robustgen.errors import DataError
    from robustgen.evaluation.adaptive import DRAWS, verdicts
    from robustgen.evaluation.attacked import predict
    from robustgen.evaluation.screening import alone

    if batch.y is None:
        raise DataError("an attack needs labelled inputs, and these have no labels")
    wrong, accepted, score, _ = verdicts(siege.guard, batch.x, batch.y, DRAWS if siege.guard.random else 1)
    began = time.perf_counter()
    first, ahead = None, 0.0
    if siege.screen:

        def told(share: float) -> None:
            nonlocal ahead
            progress((share * _SCREENING - ahead) * len(wrong))
            ahead = share * _SCREENING

        (first,) = alone(siege.guard.classifier, batch.x, batch.y, [siege.threat], seed=siege.seed, progress=told)
    spent = time.perf_counter() - began
    found, evasion = _evaded(siege, batch.x, batch.y, first, lambda inputs: progress((1 - ahead) * inputs))
    forward, backward = evasion.forward, evasion.backward
    if first is not None and first.forward is not None and first.backward is not None:
        forward, backward = forward + first.forward, backward + first.backward
    said = partial(predict, siege.guard.classifier, batch_size=siege.batch_size or _BLOCK)
    never = torch.zeros_like(evasion.lost)
    tensors = {
        "index": batch.index,
        "y": batch.y,
        "clean_prediction": said(batch.x).argmax(1),
        "prediction": said(evasion.x_adv).argmax(1),
        "clean_wrong": wrong,
        "clean_accepted": accepted,
        "clean_score": score,
        "lost": evasion.lost,
        "fooled": evasion.fooled,
        "score": evasion.score,
        "size": siege.threat.distance(evasion.x_adv, batch.x),
        "member": evasion.member,
        "tried": torch.stack([evasion.tried.get(name, never) for name in evasion.members], 1),
        "forward": forward,
        "backward": backward,
        "x_adv": evasion.x_adv.float(),
    }
    if siege.rounded:
        tensors["lost_unrounded"] = found.lost
    n = len(batch.y)
    return {name: value.cpu().numpy() for name, value in tensors.items()} | {
        "held": np.zeros(n, dtype=bool) if first is None else ~first.fooled.cpu().numpy(),
        "seconds": np.full(n, (spent + sum(evasion.seconds.values())) / max(1, n)),
        "members": np.asarray(evasion.members),
        "surrogate": np.full(n, evasion.surrogate),
    }


def _evaded(
    siege: _Siege, x: Tensor, y: Tensor, first: Alone | None, progress: Callable[[float], None]
) -> tuple[Evasion, Evasion]:
    """What became of the inputs, and what became of them in image files, the same where nothing is rounded. `first`:
    what Auto-Attack made of them against the classifier.
    """
    import torch

    from robustgen.evaluation.adaptive import evade
    from robustgen.evaluation.handed_in import as_images

    given = {
        "bundle": siege.bundle, "only": siege.only, "pool": siege.pool, "smallest": siege.smallest,
        "seed": siege.seed, "batch_size": siege.batch_size, "precision": siege.precision,
    }  # fmt: skip
    before = {} if first is None else {"known": {"auto-attack": first.x_adv}, "held": ~first.fooled}
    found = evade(siege.guard, x, y, siege.threat, **given, **before, progress=progress)  # type: ignore[arg-type]
    if not siege.rounded:
        return found, found
    made = as_images(siege.guard, x, y, siege.threat, found, **given)
    clean = torch.full_like(made.member, made.members.index("clean"))
    return found, replace(made, member=torch.where(made.lost & (made.member < 0), clean, made.member))


def _checked(
    siege: _Siege, source: Source, rows: np.ndarray[Any, Any], samples: Arrays, quiet: bool
) -> list[dict[str, Any]]:
    """Whether the figures can be believed: the masking checks, on a few of the inputs; none where all are wrong."""
    import numpy as np
    import torch

    from robustgen.evaluation.masking import masking_checks

    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(_CHECKED, len(rows))).round().astype(int))]
    batch = source.read(some).to(siege.guard.device)
    with torch.no_grad():
        right = siege.guard.classifier(batch.x).argmax(1) == batch.y
    if not right.any() or not siege.threat.eps:
        return []
    assert batch.y is not None  # the attack had labels
    with output.stages(quiet) as stage:
        checks = masking_checks(
            siege.guard,
            siege.threat,
            batch.x,
            batch.y,
            eot=siege.bundle.draws if siege.guard.random else 1,
            seed=siege.seed,
            held=torch.isin(batch.index, torch.from_numpy(samples["index"][samples["held"]]).to(batch.index)),
            precision=siege.precision,
            told=lambda name, share: stage(f"checking the result: {name}", share),
        )
    return [check.to_json() for check in checks]


def _summary(siege: _Siege, data: str, samples: Arrays, names: list[str]) -> dict[str, Any]:
    import numpy as np

    from robustgen.evaluation.curve import evasions
    from robustgen.metrics import proportion

    n, lost = len(samples["y"]), samples["lost"]
    right = ~samples["clean_wrong"] & samples["clean_accepted"]
    shares = {
        "useful accuracy (right and accepted)": right,
        "attack success (wrong and accepted)": lost,
        "robust accuracy with detector": ~lost,
        "right, accepted and never evaded": right & ~lost,
        "fooled, accepted or not": samples["fooled"],
    }
    return {
        "attack": siege.name,
        "guard": siege.guard.name,
        "data": data,
        "norm": siege.threat.norm,
        "eps": siege.threat.eps,
        "fpr": siege.guard.threshold.fpr,
        "threshold": siege.guard.threshold.value,
        "precision": siege.precision,
        "surrogate": bool(samples["surrogate"].any()),
        "left_out": int(samples["held"].sum()) if siege.screen else None,
        "n": n,
        "shares": {name: proportion(int(mask.sum()), n)._asdict() for name, mask in shares.items()},
        "quantise": _rounding(samples),
        "members": [
            {
                "name": name,
                "lost": int((lost & (samples["member"] == number)).sum()),
                "tried": int(samples["tried"][:, number].sum()),
            }
            for number, name in enumerate(names)
        ],
        "curve": evasions(siege.threat, lost, samples["size"]) if siege.smallest else [],
        "median_size": float(np.median(samples["size"][lost])) if siege.smallest and lost.any() else None,
        "forward_passes": int(samples["forward"].sum()),
        "backward_passes": int(samples["backward"].sum()),
        "seconds": float(samples["seconds"].sum()),
    }


def _rounding(samples: Arrays) -> dict[str, Any] | None:
    """The success rate before and after rounding to levels; None where nothing was rounded."""
    from robustgen.evaluation.quantise import LEVELS

    if "lost_unrounded" not in samples:
        return None
    before, after = (float(samples[key].mean()) for key in ("lost_unrounded", "lost"))
    return {"levels": LEVELS, "success_before": before, "success_after": after}


def _write(directory: Path, samples: Arrays, summary: dict[str, Any], source: Source) -> None:
    from robustgen.artifacts import RESULTS, to_json
    from robustgen.evaluation.blocks import write_samples
    from robustgen.report.evasion_page import save_evasion_report

    write_samples(directory, samples)
    save_evasion_report(directory, summary, shlex.join(["robustgen", *sys.argv[1:]]), samples, source)
    (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")


def _print(title: str, summary: dict[str, Any]) -> None:
    def row(name: str, value: float, low: float, high: float) -> tuple[str, str, str]:
        return name, f"{value:.2%}", f"{low:.2%} to {high:.2%}"

    shares = [row(name, share["value"], share["low"], share["high"]) for name, share in summary["shares"].items()]
    found = [
        (f"found by {member['name']}", str(member["lost"]) if member["tried"] else "not tried", "")
        for member in summary["members"]
    ]
    median = summary["median_size"]
    sizes = [] if median is None else [(f"median {summary['norm']} of successes", f"{median:.4g}", "")]
    seconds = ("seconds", f"{summary['seconds']:.1f}", "")
    rounding = []
    if summary["quantise"] is not None:
        before = summary["quantise"]["success_before"]
        rounding = [("before rounding to 256 levels", f"{before:.2%}", "attack success")]
    gradients = []
    if summary["surrogate"]:
        gradients = [("gradients", "of a stand-in learnt from answers", "a stronger attack may exist")]
    left = summary["left_out"]
    screened = [] if left is None else [("held by the classifier alone", str(left), "left out of attacks on the guard")]
    rows = [*shares, *rounding, *screened, *found, *sizes, *gradients, seconds, *_checks(summary["checks"])]
    output.table(title, ("", "value", "95 % interval"), rows)
    if summary["curve"]:
        points = [
            row(f"{point['eps']:.4g}", point["success"], *point["success_interval"]) for point in summary["curve"]
        ]
        output.table("success against eps", ("eps", "value", "95 % interval"), points)


def _checks(checks: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """How many masking checks failed, passed, and could not be tried."""
    told = [check["passed"] for check in checks]
    counts = {"failed": told.count(False), "passed": told.count(True), "not tried": told.count(None)}
    said = ", ".join(f"{count} {how}" for how, count in counts.items() if count or how == "passed")
    return [("masking checks", said, "see warnings" if counts["failed"] else "")] if checks else []
