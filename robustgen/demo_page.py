"""The demo's report: what was done, what came out, and what it does not show."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.artifacts import RESULTS, to_json
from robustgen.demo import Outcome, interval, percent
from robustgen.detectors.autoencoder import AutoencoderDetector
from robustgen.evaluation.attacked import predict
from robustgen.report.curves import roc_curves, score_histograms
from robustgen.report.page import Block, Code, Notice, Number, Numbers, Page, Paragraph, Picture, Section, Table, render
from robustgen.report.strips import adversarial_strip, reconstruction_maps

KINDS = {
    "clean": "clean test inputs",
    "fgsm": "adversarial, FGSM",
    "pgd": "adversarial, PGD",
    "noise": "random noise of the same size",
    "foreign": "foreign: photographs",
}
_STRIP = 8


def write(directory: Path, outcome: Outcome) -> None:
    """Write `results.json`, `report.html` and every score (`scores.npz`, one array `detector/kind` each) into
    `directory`, a staged one.
    """
    arrays: dict[str, Any] = {
        f"{name}/{kind}": values for name, kinds in outcome.scores.items() for kind, values in kinds.items()
    }
    np.savez_compressed(directory / "scores.npz", **arrays)
    (directory / RESULTS).write_text(to_json(outcome.results), encoding="utf-8")
    (directory / "report.html").write_text(render(page(outcome)), encoding="utf-8")


def page(outcome: Outcome) -> Page:
    """The report as a page."""
    settings, results = outcome.settings, outcome.results
    return Page(
        title=f"Fooled, and noticed? A classifier of {outcome.source.spec.name}",
        lead=_lead(outcome),
        sections=[
            Section("What was done", _done(outcome)),
            Section("How easily it is fooled", _fooled(outcome)),
            Section("What the detectors catch", _caught(outcome)),
            Section("What the autoencoder sees", _reconstructions(outcome)),
            Section("Scores and thresholds", _scores(outcome)),
            Section("What this does not show", _limits()),
        ],
        facts={
            "data": f"{outcome.source.spec.name}, SHA-256 {outcome.source.spec.sha256[:16]}",
            "seed": str(settings.seed),
            "device": f"{results['classifier']['device']['device']}, {results['classifier']['device']['threads']} "
            "threads",
            "time": f"{results['seconds']:.0f} s",
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **{name: version for name, version in results["versions"].items() if name != "robustgen"},
        },
        command=f"robustgen demo --data {settings.data} --fpr {settings.fpr:g} --seed {settings.seed}"
        + (f" --eps {settings.eps:g}" if settings.eps is not None else ""),
        version=results["versions"].get("robustgen", ""),
    )


def _best(outcome: Outcome, kind: str) -> tuple[str, float]:
    """The detector that catches most of a kind, and the share."""
    name = max(outcome.separations, key=lambda detector: outcome.separations[detector][kind].detected.value)
    return name, outcome.separations[name][kind].detected.value


def _lead(outcome: Outcome) -> list[Block]:
    pgd = outcome.attacks["pgd"]
    eps = pgd.summary["eps"]
    numbers = [
        Number(percent(pgd.clean_accuracy.value), "accuracy on clean inputs", interval(pgd.clean_accuracy)),
        Number(percent(pgd.robust_accuracy.value), "accuracy under PGD", interval(pgd.robust_accuracy)),
    ]
    verdict = (
        f"The classifier is right on {percent(pgd.clean_accuracy.value)} of clean inputs. When an attacker may change "
        f"every pixel by {eps:g} "
        f"(the range is 0 to 1), it is right on {percent(pgd.robust_accuracy.value)}."
    )
    for kind, label in (("pgd", "of PGD's successes caught"), ("foreign", "of foreign inputs caught")):
        if kind in outcome.inputs:
            name, share = _best(outcome, kind)
            numbers.append(Number(percent(share), label, f"by {name}, at {percent(outcome.settings.fpr)} false alarms"))
    if "pgd" in outcome.inputs:
        name, share = _best(outcome, "pgd")
        verdict += f" The best of the three detectors, {name}, notices {percent(share)} of the inputs that fooled it."
        noise = outcome.separations[name]["noise"].detected.value
        if noise > 0.8 * share:
            verdict += (
                f" But it flags {percent(noise)} of random noise of that size as well: it sees that pixels were "
                "changed, not that there was an attack."
            )
    kind = "bad" if pgd.robust_accuracy.value < 0.5 * pgd.clean_accuracy.value else "warning"
    return [Notice(kind, verdict), Numbers(numbers)]  # type: ignore[arg-type]  # one of the four kinds


def _done(outcome: Outcome) -> list[Block]:
    summary, fpr = outcome.results["classifier"], outcome.settings.fpr
    first = next(iter(outcome.detectors.values()))
    return [
        Paragraph(
            f"A {summary['arch']} with {summary['parameters']:,} parameters was trained on {summary['n_train']:,} "
            f"inputs of {summary['data']}. FGSM (one step) and "
            f"PGD ({outcome.attacks['pgd'].summary['configuration']['steps']} steps from a random start) then looked "
            "for changes of at most "
            f"{outcome.attacks['pgd'].summary['eps']:g} per pixel that change its answer, for each of "
            f"{outcome.attacks['pgd'].summary['n_attacked']:,} test inputs that it had right."
        ),
        Paragraph(
            "Three detectors were fitted on the same training inputs, without labels or attacks. Their thresholds "
            f"come from {first.threshold.n_calibration:,} "
            f"held-out clean inputs, so that at most {percent(fpr)} of normal inputs is flagged in expectation, "
            "whatever the detector (split-conformal calibration). Training, "
            f"calibration and test inputs are disjoint."
        ),
        Table(
            ("kind of input", "inputs", "what it is"),
            [(KINDS[kind], f"{len(x):,}", _what(kind)) for kind, x in outcome.inputs.items()],
            caption="What the detectors were tried on",
        ),
    ]


def _what(kind: str) -> str:
    return {
        "clean": "test inputs as they are, right or wrong: they should pass",
        "fgsm": "only those that fooled the classifier",
        "pgd": "only those that fooled the classifier",
        "noise": "random signs of the attack's size, which are no attack: a control",
        "foreign": "patches of scikit-learn's two sample photographs",
    }[kind]


def _fooled(outcome: Outcome) -> list[Block]:
    blocks: list[Block] = [
        Table(
            ("input", "accuracy", "95 % interval", "success rate", "median L2", "passes per input"),
            [
                (
                    "clean",
                    percent(next(iter(outcome.attacks.values())).clean_accuracy.value),
                    interval(next(iter(outcome.attacks.values())).clean_accuracy),
                    "-",
                    "-",
                    "-",
                )
            ]
            + [
                (
                    f"under {name.upper()}",
                    percent(found.robust_accuracy.value),
                    interval(found.robust_accuracy),
                    "-" if found.success_rate is None else percent(found.success_rate.value),
                    "-" if found.summary["norms"]["l2"] is None else f"{found.summary['norms']['l2']['median']:.3f}",
                    f"{found.summary['backward_passes'] / max(1, found.summary['n_attacked']):.1f}",
                )
                for name, found in outcome.attacks.items()
            ],
            caption=f"Accuracy of the classifier, linf, eps {outcome.attacks['pgd'].summary['eps']:g}",
            note="Success rate: of the inputs that were classified correctly, the share that was fooled. Passes: "
            "forward and backward, until the first success.",
        )
    ]
    blocks += [Notice("warning", text) for found in outcome.attacks.values() for text in found.summary["warnings"]]
    name = "pgd" if "pgd" in outcome.inputs else "fgsm"
    rows = np.flatnonzero(outcome.attacks[name].samples["success"])[:_STRIP]
    if len(rows):
        network, device = outcome.classifier.model.network, next(outcome.classifier.model.network.parameters()).device
        before, after = outcome.clean[rows], outcome.adversarial[name][rows]
        said = [predict(network, x.to(device), 256).softmax(1).max(1) for x in (before, after)]
        figure = adversarial_strip(
            before,
            after,
            outcome.labels[rows],
            said[0].indices.cpu(),
            said[1].indices.cpu(),
            confidences=(said[0].values.cpu(), said[1].values.cpu()),
            names=outcome.source.spec.classes,
        )
        blocks.append(
            Picture(
                figure,
                f"{len(rows)} inputs before and after {name.upper()}, and the magnified difference",
                f"The first {len(rows)} inputs that {name.upper()} fooled. Above each column its true class; under "
                "each picture what the classifier said, and how surely.",
            )
        )
    return blocks


def _caught(outcome: Outcome) -> list[Block]:
    rows = []
    for name, separations in outcome.separations.items():
        alarms = next(iter(separations.values())).false_alarms
        rows.append((name, KINDS["clean"], percent(alarms.value), interval(alarms), "-", "-", f"{alarms.n:,}"))
        rows += [
            (
                name,
                KINDS[kind],
                percent(s.detected.value),
                interval(s.detected),
                f"{s.auroc.value:.3f}",
                f"{s.auroc.low:.3f} to {s.auroc.high:.3f}",
                f"{s.detected.n:,}",
            )
            for kind, s in separations.items()
        ]
    return [
        Table(
            ("detector", "input", "flagged", "95 % interval", "AUROC", "95 % interval of AUROC", "inputs"),
            rows,
            caption=f"Share of inputs flagged at thresholds for {percent(outcome.settings.fpr)} false alarms",
            note="Flagged clean inputs are false alarms. AUROC: the chance that such an input scores above a clean "
            "one; 0.5 is guessing. A detector that flags random "
            "noise as often as attacks sees that pixels were changed, not that there was an attack.",
        ),
    ]


def _reconstructions(outcome: Outcome) -> list[Block]:
    fitted = outcome.detectors["autoencoder"]
    detector = fitted.detector
    assert isinstance(detector, AutoencoderDetector)
    columns: list[tuple[str, Tensor]] = [
        (KINDS[kind].split(":")[0], x)
        for kind in ("clean", "pgd", "foreign")
        if kind in outcome.inputs
        for x in outcome.inputs[kind][:3]
    ]
    x = torch.stack([picture for _, picture in columns])
    with torch.no_grad():
        back = detector.reconstruct(x.to(fitted.device)).cpu()
    judged = fitted.judge(x)
    figure = reconstruction_maps(
        x,
        back.clamp(0, 1),
        (x - back).square().mean(1),
        [title for title, _ in columns],
        [f"{score:.4f}{' *' if flagged else ''}" for score, flagged in zip(judged.score, judged.flagged, strict=True)],
    )
    return [
        Paragraph(
            "The autoencoder was trained to give back normal inputs through a narrow code. Its score is "
            f"{' + '.join(detector.combination.parts)} (l2: the mean squared error of what comes back; ssim: how "
            "unlike "
            "the input that is; knn: how far the code is from those of training inputs). The maps show where the "
            "squared "
            "error arises."
        ),
        Picture(
            figure,
            "Inputs, their reconstructions and the squared error per pixel, for clean, adversarial and foreign inputs",
            f"Score under each map; the threshold is {fitted.threshold.value:.4f}, * marks what is flagged.",
        ),
    ]


def _scores(outcome: Outcome) -> list[Block]:
    blocks: list[Block] = []
    for name, scores in outcome.scores.items():
        threshold = outcome.detectors[name].threshold
        blocks.append(
            Picture(
                score_histograms(
                    {KINDS[kind]: values for kind, values in scores.items()},
                    threshold.value,
                    f"{name}: scores by kind of input",
                    threshold.fpr,
                ),
                f"Histogram of {name} scores by kind of input, with the threshold at {threshold.value:.4g}",
            )
        )
        curves = {
            KINDS[kind]: (*separation.roc, separation.auroc.value)
            for kind, separation in outcome.separations[name].items()
        }
        blocks.append(
            Picture(
                roc_curves(curves, f"{name}: what is caught against false alarms", threshold.fpr),
                f"ROC curves of {name} for each kind of input",
            )
        )
    return blocks


def _limits() -> list[Block]:
    return [
        Notice(
            "warning",
            "The attacks shown here do not know of the detectors. An attacker who does can often find inputs that "
            "fool the classifier and pass the detector too: "
            "read the detection rates as the easy case, not as a defence.",
        ),
        Paragraph(
            "PGD's robust accuracy is an upper bound: a stronger attack can only lower it. Figures are from one "
            "training run; the intervals cover the test inputs, not another training."
        ),
        Paragraph("The same steps on your own model and data:"),
        Code(
            "robustgen attack pgd --model path.py:function --weights weights.pt --data images/ --eps 8/255 --out run/\n"
            "robustgen fit autoencoder --data images/ --fpr 0.05 --out detector/\n"
            "robustgen detect detector/ new-images/ --out scores.csv"
        ),
    ]
