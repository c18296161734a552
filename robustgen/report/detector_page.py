"""The report of a fitted detector: what it knows of normal inputs, what it makes, and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import Codec, Mixer, Sampler, as_codec
from robustgen.detectors.cycle_gan import LEVELS, NOISE, CycleGANDetector
from robustgen.detectors.pair_gan import PairGANDetector
from robustgen.detectors.record import Recorded
from robustgen.detectors.self_test import MOST, PLURAL, anomalies
from robustgen.evaluation.compression import unit
from robustgen.evaluation.encoding import encode
from robustgen.evaluation.sampling import draw, mix
from robustgen.evaluation.translation import Translator, translate
from robustgen.report.canvas import percent
from robustgen.report.codes_page import codes_map
from robustgen.report.course import course
from robustgen.report.curves import score_histograms
from robustgen.report.heat_maps import heat_map_sheet
from robustgen.report.page import Block, Notice, Number, Numbers, Page, Paragraph, Picture, Section, Table
from robustgen.report.samples import mixing_sheet, sample_sheet
from robustgen.report.strips import reconstruction_maps
from robustgen.report.translations import translated_sheet

_MAPPED, _SHOWN, _MIXED, _COMPARED = 2000, 32, 6, 8


def detector_page(
    detector: CalibratedDetector, source: Source, command: str, seed: int = 0, progress: Callable[[str], object] = print
) -> Page:
    """What can be shown of `detector`, fitted on `source`: scores of the held-out inputs, the self-test, training,
    samples, reconstructions and a map of codes, as far as it has them. `progress` is told what is being drawn.
    """
    sections = [
        Section(title, blocks)
        for title, make in (
            ("Scores of normal inputs", _scores),
            ("Made-up anomalies", _self_test),
            ("Training", _training),
            ("What it makes", _made),
            ("What it makes of inputs", _given_back),
            ("What it translates", _translated),
            ("Which patches do not fit", _patches),
            ("Map of codes", _map),
        )
        if (blocks := _told(progress, title, make, detector, source, seed))
    ]
    summary = detector.summary()
    return Page(
        title=f"{detector.name} fitted on {source.spec.name}",
        lead=_lead(detector, summary),
        sections=sections,
        facts={
            "data": f"{source.spec.name}, SHA-256 {source.spec.sha256[:16]}",
            "options": ", ".join(f"{name} {value}" for name, value in summary["options"].items() if value is not None),
            **{name: version for name, version in summary["versions"].items() if name != "robustgen"},
        },
        command=command,
        version=summary["versions"].get("robustgen", ""),
    )


def _told(progress: Callable[[str], object], title: str, make: Any, *given: Any) -> list[Block]:
    progress(title.lower())
    blocks: list[Block] = make(*given)
    return blocks


def _lead(detector: CalibratedDetector, summary: dict[str, Any]) -> list[Block]:
    threshold = detector.threshold
    lead: list[Block] = [
        Paragraph(
            f"It has seen {summary['n_train']:,} training inputs, and its threshold comes from "
            f"{threshold.n_calibration:,} others. An input whose score lies above it is flagged: at most "
            f"{percent(threshold.fpr)} of normal inputs in expectation. How well it stands up to an attacker who knows "
            "it is not shown here."
        ),
        Numbers(
            [
                Number(percent(threshold.fpr), "false alarms at most", "chosen"),
                Number(f"{threshold.value:.4g}", "threshold", "higher scores are flagged"),
            ]
        ),
    ]
    tested = detector.self_test
    warnings = [*summary["training_warnings"], *([] if tested is None else tested.warnings)]
    if detector.raw is not None:
        warnings += detector.raw.warnings
    lead += [Notice("warning", f"{warning[0].upper()}{warning[1:]}.") for warning in warnings]
    return lead


def _scores(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    groups = {"held-out inputs": detector.calibration_scores}
    figure = score_histograms(groups, detector.threshold.value, fpr=detector.threshold.fpr)
    return [Picture(figure, alt="Histogram of the anomaly scores of held-out normal inputs, with the threshold.")]


def _self_test(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    blocks: list[Block] = []
    tested, raw = detector.self_test, detector.raw
    if tested is not None and tested.auroc:
        rows = [(PLURAL.get(kind, kind), f"{value:.3f}") for kind, value in tested.auroc.items()]
        blocks.append(
            Table(
                ("made of held-out inputs", "AUROC"),
                rows,
                note=f"Against {tested.n} held-out inputs. 1 = told apart, 0.5 = chance. These are no attacks.",
            )
        )
    if raw is not None:
        rows3 = [(kind, f"{value:.3f}", f"{raw.score[kind]:.3f}") for kind, value in raw.raw.items()]
        blocks.append(Table(("foreign inputs", "raw likelihood (-ELBO)", "this score"), rows3, note=raw.reason))
    return blocks


def _training(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    if not isinstance(detector.detector, Recorded):
        return []
    figure = course(detector.detector.record.course())
    return [
        Paragraph(f"{detector.detector.record.verdict()}."),
        Picture(figure, alt="Lines over the rounds of training: shares told apart, variety, and AUROC."),
    ]


def _drawable(detector: CalibratedDetector, source: Source) -> bool:
    return source.spec.kind == "image" and source.spec.shape[0] in (1, 3) and detector.features is None


def _made(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    drawn = isinstance(detector.detector, Sampler) and getattr(detector.detector, "generates", True)
    if not (_drawable(detector, source) and drawn):
        return []
    x = draw(detector, _SHOWN, seed)
    judged = detector.judge(x)
    sheet = sample_sheet(unit(x, source.spec), "drawn", judged.p_value.tolist(), judged.flagged.tolist())
    flagged = int(judged.flagged.sum())
    blocks: list[Block] = [
        Picture(
            sheet,
            alt=f"{_SHOWN} inputs drawn from the model, each with its p-value.",
            caption=f"Drawn from the model and judged by it: {flagged} of {_SHOWN} flagged.",
        )
    ]
    if isinstance(detector.detector, Mixer):
        blocks.append(
            Picture(
                mixing_sheet(unit(mix(detector, _MIXED, seed), source.spec)),
                alt="A grid of mixed styles: coarse from the row's sample, fine from the column's.",
                caption="Style mixing: the early stages from the row's sample, the late ones from the column's; the "
                "diagonal holds the samples themselves.",
            )
        )
    return blocks


def _given_back(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    if not (_drawable(detector, source) and isinstance(detector.detector, Codec)) or detector.detector.conditional:
        return []
    x = source.read(source.spread("calibration", 200)).x
    scores = detector.judge(x).score
    order = np.argsort(scores, kind="stable")
    half = min(_COMPARED // 2, len(order) // 2)
    if not half:
        return []
    rows = np.concatenate([order[:half], order[-half:]])
    before = x[torch.from_numpy(rows)]
    with torch.no_grad():
        after = as_codec(detector.detector, detector.name).reconstruct(before.to(detector.device)).cpu()
    shown, back = unit(before, source.spec), unit(after.clamp(source.spec.low, source.spec.high), source.spec)
    figure = reconstruction_maps(
        shown,
        back,
        (shown - back).abs().mean(1),
        ["lowest scores"] * half + ["highest scores"] * half,
        [f"{scores[row]:.3g}" for row in rows],
    )
    return [Picture(figure, alt="Held-out inputs, what the model gives back for them, and where the two differ.")]


def _translated(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    own = detector.detector
    if not isinstance(own, Translator):
        return []
    rows, blocks = source.spread("calibration", _COMPARED), list[Block]()
    for to in own.directions:
        found = translate(detector, source, rows, to)
        if {found.x.shape[1], found.made.shape[1]} <= {1, 2, 3, 6} and found.made.shape[1] in (1, 3):
            alt = f"Held-out inputs, and below each what the model makes of it towards {to}."
            blocks.append(Picture(translated_sheet(found, source.spec, _COMPARED), alt=alt, caption=f"To {to}."))
    return blocks + (
        [*_from_other(detector, source), *_hidden(own, source, seed)] if isinstance(own, CycleGANDetector) else []
    )


def _from_other(detector: CalibratedDetector, source: Source) -> list[Block]:
    """What it is for: inputs of the other domain brought to the normal one. Held-out inputs are all normal, so these
    are training inputs.
    """
    some = source.spread("train", 100 * _COMPARED)
    y = source.read(some).y
    rows = some[:0] if y is None else some[(y == 1).numpy()][:_COMPARED]
    if not len(rows) or detector.spec.shape[0] not in (1, 3):
        return []
    found = translate(detector, source, rows, "normal")
    alt = "Training inputs of the other domain, and below each what the model makes of it towards normal."
    caption = "Training inputs of the other domain, to normal."
    return [Picture(translated_sheet(found, source.spec, _COMPARED), alt=alt, caption=caption)]


def _hidden(detector: CycleGANDetector, source: Source, seed: int) -> list[Block]:
    """What its translations carry beside what they show."""
    x = source.read(source.spread("calibration", MOST)).x.to(detector.typical.device)
    made = anomalies(x, "image", source.spec.low, source.spec.high, torch.Generator().manual_seed(seed))
    rows = []
    with torch.no_grad():
        for name, images in (("held-out inputs", x), *((kind, made[kind]) for kind in ("shuffled", "noise"))):
            coarse = detector.panel(images, ("cycle",))["cycle"]
            exact = (detector.translate(detector.translate(images, "other")) - images).abs().flatten(1).mean(1)
            rows.append((name, f"{float(coarse.mean()):.4f}", f"{float(exact.mean()):.4f}"))
    return [
        Paragraph(
            "A cycle GAN can hide its input in the translation, too faint to see, so that the way back restores even "
            "what is foreign (Chu, Zhmoginov, Sandler 2017). Its cycle error therefore goes back from a translation "
            f"brought to {LEVELS} levels, with noise of {NOISE} on it. Where the error of foreign images is far "
            "smaller without that, they were hidden."
        ),
        Table(("mean cycle error of", "as it is scored", "from the translation as it is"), rows),
    ]


def _patches(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    own = detector.detector
    if not isinstance(own, PairGANDetector) or source.spec.shape[0] - own.channels not in (1, 3):
        return []
    x = source.read(source.spread("calibration", _COMPARED)).x
    half = len(x) // 2
    if not half:
        return []
    foreign = torch.cat([x.roll(1, 0)[half:, : own.channels], x[half:, own.channels :]], 1)
    shown = torch.cat([x[:half], foreign])
    parts = detector.explain(shown)[:, own.channels :].sum(1).cpu()
    judged = detector.judge(shown)
    notes = [f"{'own' if row < half else 'other'}: {judged.score[row]:.3g}" for row in range(len(shown))]
    return [
        Paragraph("Held-out photos with their own condition, and with that of another input; the score under each."),
        Picture(
            heat_map_sheet(unit(shown[:, own.channels :], source.spec), parts, notes),
            alt="Photos, and over each a heat-map of what each place adds to the score.",
        ),
    ]


def _map(detector: CalibratedDetector, source: Source, seed: int) -> list[Block]:
    if not isinstance(detector.detector, Codec) or detector.features is not None or detector.detector.conditional:
        return []
    found = encode(detector, source, source.spread("calibration", _MAPPED))
    if min(found.code.shape) < 2 or len(found.code) < 3:
        return []
    return [
        Picture(
            codes_map(detector, found, source, "pca", seed),
            alt="Points on a plane, one for each held-out input: coloured by class where there are labels, and by "
            "anomaly score with flagged inputs ringed.",
        )
    ]
