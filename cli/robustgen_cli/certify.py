"""`robustgen certify`: what no attack whatever can take from a guard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_optional


def register(app: typer.Typer) -> None:
    app.command("certify")(certify)


def certify(
    guard: Annotated[Path, typer.Option("--guard", help="A directory made by 'robustgen guard'.", show_default=False)],
    data: o.Data,
    eps: Annotated[
        float,
        typer.Option(
            "--eps",
            parser=o.number,
            metavar="NUMBER",
            help="Largest change of a value allowed (Linf), in input units: 0.1 or 8/255.",
            show_default=False,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="How it is proven: by interval bounds, or by crown, which proves more and takes far longer.",
            autocompletion=o.among(("interval", "crown")),
        ),
    ] = "interval",
    split: Annotated[
        str,
        typer.Option("--split", help="Which inputs: train, calibration, test, all or auto (test, if trained on it)."),
    ] = "auto",
    limit: o.Limit = None,
    model: o.OptionalModel = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    size: o.Size = None,
    device: o.Device = "auto",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Prove for as many inputs as possible that nothing within eps of them gets a wrong label accepted.

    A certificate holds for every attack, known or not. What is not certified need not be insecure: networks that were
    not trained for bounds have loose ones, and mostly nothing can be proven of them. The detector certified-gat is
    trained for it.

    Example: robustgen certify --guard guard/ --data fashion-mnist --eps 0.1 --limit 1000
    """
    import torch

    from robustgen import runtime
    from robustgen.errors import DataError
    from robustgen.evaluation.certified import Certificate
    from robustgen.evaluation.certified import certify as prove
    from robustgen.evaluation.select import data_for, threat_on
    from robustgen.guard import Guard

    where = runtime.device(device)
    loaded = Guard.load(guard, load_optional(model, weights, mean, std, trust)).to(where)
    source, part = data_for(data, loaded.loaded, split, size=size)
    threat = threat_on(source.spec, "linf", eps)
    rows = source.spread(part, limit)
    found: list[Certificate] = []
    with output.counting(f"proving, linf eps {eps:.4g}", len(rows), quiet) as progress:
        for start in range(0, len(rows), _AT_ONCE):
            batch = source.read(rows[start : start + _AT_ONCE]).to(where)
            if batch.y is None:
                raise DataError("a certificate is of labelled inputs, and these have no labels")
            found.append(prove(loaded, batch.x, batch.y, threat, method=method, progress=progress))
    joined = Certificate(*(torch.cat(masks) for masks in zip(*(vars(one).values() for one in found), strict=True)))
    figures = joined.figures()
    said = _sentence(figures, eps)
    output.warn_skipped(source.skipped, quiet)
    about: dict[str, Any] = {
        "guard": loaded.name,
        "data": source.spec.name,
        "split": part,
        "method": method,
        "norm": "linf",
        "eps": eps,
        "fpr": loaded.threshold.fpr,
    }
    if json:
        output.emit(about | figures | {"sentence": said})
        return
    title = f"{method} bounds of {guard}: linf, eps {eps:.4g}, {figures['n']} inputs of {source.spec.name}"
    shown = [(text, *_shares(figures[name])) for name, text in _WORDS.items()]
    output.table(title, ("", "value", "95 % interval"), shown)
    output.facts([("this says", said)])


_AT_ONCE = 500
_WORDS = {
    "accuracy": "classified rightly, clean",
    "useful": "useful accuracy, clean (right and accepted)",
    "certified_robust_accuracy": "certified robust accuracy with detector",
    "certified_useful": "certified, and clean right and accepted",
    "by_classifier": "proven by the classifier alone",
    "by_detector": "proven by the detector alone",
}


def _shares(found: dict[str, float]) -> tuple[str, str]:
    return f"{found['value']:.2%}", f"{found['low']:.2%} to {found['high']:.2%}"


def _sentence(figures: dict[str, Any], eps: float) -> str:
    share = figures["certified_robust_accuracy"]["value"]
    return (
        f"for {share:.1%} of these inputs it is proven that no change of at most {eps:g} a value, by any attack, gets "
        "a wrong label accepted; of the others nothing is known from this"
    )
