"""`robustgen attack adaptive --guard G`: how often does an attacker who knows the detector get through?"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.errors import UsageError
from robustgen_cli import output

if TYPE_CHECKING:
    import numpy as np

NAMES = ("adaptive", "adaptive-standard", "adaptive-strong")
_BLOCK = 128  # inputs: what is lost when a run is killed


def attack_guard(
    name: str,
    guard: Path | None,
    data: str,
    eps: tuple[float, ...] | None,
    *,
    norm: str | None,
    bundle: str | None,
    only: str | None,
    out: Path | None,
    split: str,
    limit: int | None,
    size: Any,
    device: str,
    seed: int,
    batch_size: int | None,
    json: bool,
    quiet: bool,
    force: bool,
) -> None:
    """Attack a guard's classifier and detectors together, block by block, and print what became of the inputs."""
    import numpy as np

    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, read_artifact, staged, to_json, write_atomically
    from robustgen.evaluation.blocks import read_block, write_block, write_samples
    from robustgen.evaluation.robustness import fingerprint
    from robustgen.evaluation.select import data_for, threat_on
    from robustgen.guard import Guard

    if guard is None:
        raise UsageError(f"{name} attacks a guard: give --guard, a directory made by 'robustgen guard'")
    if eps is None or len(eps) != 1:
        raise UsageError(f"{name} needs the size of the change allowed, one number: give --eps, such as 0.1 or 8/255")
    chosen = f"adaptive-{bundle or 'standard'}" if name == "adaptive" else name
    if bundle is not None and (bundle not in ("standard", "strong") or name != "adaptive"):
        raise UsageError(f"--bundle is standard or strong, of the attack adaptive, but {bundle!r} came with {name}")
    if out is not None:
        check_free(out, force)
    where = runtime.device(device)
    runtime.keep_freed_memory()
    loaded = Guard.load(guard).to(where)
    source, part = data_for(data, loaded.loaded, split, size=size)
    threat = threat_on(source.spec, norm or "linf", eps[0])
    rows = source.spread(part, limit)
    members = None if only is None else [each.strip() for each in only.split(",")]
    key = fingerprint(
        command="attack adaptive", bundle=chosen, only=members, guard=read_artifact(guard).sha256, norm=threat.norm,
        eps=threat.eps, data=source.spec.sha256, split=part, limit=limit, seed=seed, device=str(where),
    )  # fmt: skip
    pool = source.read(source.spread("calibration", 2000)).x.to(where)
    blocks: list[dict[str, Any]] = []
    with nullcontext() if out is None else staged(out, force, key) as directory:
        with output.counting(f"{chosen} {threat.norm} eps {threat.eps:.4g}", len(rows), quiet) as progress:
            for number, start in enumerate(range(0, len(rows), _BLOCK)):
                path = None if directory is None else directory / f"block-{number:05d}.npz"
                if path is not None and path.is_file():
                    done = read_block(path)
                    progress(len(done["index"]))
                else:
                    batch = source.read(rows[start : start + _BLOCK]).to(where)
                    done = _block(loaded, batch, threat, chosen, members, pool, seed, batch_size, progress)
                    if path is not None:
                        write_atomically(path, partial(write_block, arrays=done))
                blocks.append({key: value for key, value in done.items() if key != "x_adv"})
        names = blocks[0].pop("members").tolist() if blocks else []
        samples = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
        summary = _summary(chosen, loaded, source.spec.name, threat, samples, names)
        if directory is not None:
            write_samples(directory, samples)
            (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
    output.warn_skipped(source.skipped, quiet)
    if json:
        output.emit(summary)
        return
    title = f"{chosen} on {guard}: {threat.norm}, eps {threat.eps:.4g}, {summary['n']} inputs of {source.spec.name}"
    shares = [(name, f"{value['value']:.2%}", f"{value['low']:.2%} to {value['high']:.2%}")
              for name, value in summary["shares"].items()]  # fmt: skip
    found = [(f"found by {member['name']}", str(member["lost"]), "") for member in summary["members"]]
    output.table(title, ("", "value", "95 % interval"), [*shares, *found, ("seconds", f"{summary['seconds']:.1f}", "")])
    if out is not None:
        output.facts([("results", str(out))])


def _block(
    guard: Any, batch: Any, threat: Any, bundle: str, only: list[str] | None, pool: Any, seed: int,
    batch_size: int | None, progress: Any,
) -> dict[str, Any]:  # fmt: skip
    """The arrays of one block."""
    import numpy as np

    from robustgen.errors import DataError
    from robustgen.evaluation.adaptive import evade, verdicts

    if batch.y is None:
        raise DataError("an attack needs labelled inputs, and these have no labels")
    wrong, accepted, score, _ = verdicts(guard, batch.x, batch.y)
    began = evade(guard, batch.x, batch.y, threat, bundle=bundle, only=only, pool=pool, seed=seed,
                  batch_size=batch_size, progress=progress)  # fmt: skip
    tensors = {
        "index": batch.index, "y": batch.y, "clean_wrong": wrong, "clean_accepted": accepted, "clean_score": score,
        "lost": began.lost, "fooled": began.fooled, "score": began.score, "member": began.member,
        "forward": began.forward, "backward": began.backward, "x_adv": began.x_adv.float(),
    }  # fmt: skip
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in tensors.items()}
    share = sum(began.seconds.values()) / max(1, len(batch.y))
    return arrays | {"seconds": np.full(len(batch.y), share), "members": np.asarray(began.members),
                     "surrogate": np.full(len(batch.y), began.surrogate)}  # fmt: skip


def _summary(
    bundle: str, guard: Any, data: str, threat: Any, samples: dict[str, np.ndarray[Any, Any]], names: list[str]
) -> dict[str, Any]:
    from robustgen.metrics import proportion

    n = len(samples["y"])
    right = ~samples["clean_wrong"] & samples["clean_accepted"]
    shares = {
        "useful accuracy (right and accepted)": right,
        "attack success (wrong and accepted)": samples["lost"],
        "robust accuracy with detector": ~samples["lost"],
        "right, accepted and never evaded": right & ~samples["lost"],
        "fooled, accepted or not": samples["fooled"],
    }
    return {
        "attack": bundle,
        "guard": guard.name,
        "data": data,
        "norm": threat.norm,
        "eps": threat.eps,
        "fpr": guard.threshold.fpr,
        "surrogate": bool(samples["surrogate"].any()),
        "n": n,
        "shares": {name: proportion(int(mask.sum()), n)._asdict() for name, mask in shares.items()},
        "members": [
            {"name": name, "lost": int((samples["lost"] & (samples["member"] == number)).sum())}
            for number, name in enumerate(names)
        ],
        "forward_passes": int(samples["forward"].sum()),
        "backward_passes": int(samples["backward"].sum()),
        "seconds": float(samples["seconds"].sum()),
    }
