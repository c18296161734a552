"""The detectors of attacked inputs of ART 1.20, and why the others do not fit.

A literal table without torch, so that listing and completion are instant. A test compares it with ART.
"""

from __future__ import annotations

from robustgen.attacks.art_names import PREFIX
from robustgen.errors import UsageError
from robustgen.registry import Entry, suggestion

__all__ = ["ART_DETECTORS", "EXCLUDED", "PREFIX", "art_detector_name"]

ART_DETECTORS = {
    "BinaryActivationDetector": Entry(
        "robustgen.detectors.art_binary:BinaryActivationDetector",
        "a network taught what PGD does to a layer of the classifier (ART)",
    ),
    "BinaryInputDetector": Entry(
        "robustgen.detectors.art_binary:BinaryInputDetector", "a network taught to tell inputs from PGD's (ART)"
    ),
    "SubsetScanningDetector": Entry(
        "robustgen.detectors.art_scan:SubsetScanningDetector",
        "the most unusual group of units in a layer of the classifier (McFowland 2013; ART; no gradients)",
    ),
}

_POISON = "it looks for poisoned training inputs, not for attacked ones"

EXCLUDED = {
    "ActivationDefence": _POISON,
    "BeyondDetectorPyTorch": "it needs a self-supervised model of the same data and its augmentations, made in code, "
    "and ART 1.20 asks that model for the label in place of the classifier that is attacked",
    "ProvenanceDefense": _POISON,
    "RONIDefense": _POISON,
    "SpectralSignatureDefense": _POISON,
}


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower().removesuffix("pytorch").removesuffix("detector")


_PLAIN = {_plain(name): name for name in (*ART_DETECTORS, *EXCLUDED)}


def art_detector_name(name: str) -> str:
    """ART's class for `name`, with or without "art:" and "Detector", in any case, with or without dashes.

    Raises `UsageError` for a name that ART does not have, or a detector that cannot be used here, with the reason.
    """
    asked = name.removeprefix(PREFIX)
    found = _PLAIN.get(_plain(asked))
    if found is None:
        raise UsageError(suggestion(asked, [n.removesuffix("Detector") for n in ART_DETECTORS], "detector of ART"))
    if found in EXCLUDED:
        raise UsageError(f"art:{found} cannot be used here: {EXCLUDED[found]}")
    return found
