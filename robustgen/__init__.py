"""robustgen: how easily a model is fooled, and whether fooled and foreign inputs can be told from normal ones.

Public names are loaded when first used: `import robustgen` itself loads neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustgen.artifacts import read_artifact, staged
    from robustgen.attacks.apgd import APGD, APGDDLR, APGDT
    from robustgen.attacks.apgd_minimal import MinimalAPGD
    from robustgen.attacks.art import art_classifier, as_evasion_attack
    from robustgen.attacks.auto_attack import AutoAttack
    from robustgen.attacks.base import Attack, AttackResult
    from robustgen.attacks.bim import BIM
    from robustgen.attacks.build import make as make_attack
    from robustgen.attacks.carlini_wagner import CarliniWagner
    from robustgen.attacks.ddn import DDN
    from robustgen.attacks.deepfool import DeepFool
    from robustgen.attacks.fab import FAB, FABT
    from robustgen.attacks.fgsm import FGSM
    from robustgen.attacks.fmn import FMN
    from robustgen.attacks.fooling import Fooling
    from robustgen.attacks.hop_skip_jump import HopSkipJump
    from robustgen.attacks.mi_fgsm import MIFGSM
    from robustgen.attacks.pgd import PGD
    from robustgen.attacks.sigma_zero import SigmaZero
    from robustgen.attacks.square import Square
    from robustgen.attacks.universal import Universal
    from robustgen.calibration import Threshold, calibrate, p_values
    from robustgen.data.load import load as load_data
    from robustgen.data.source import Batch, DataSpec, Source
    from robustgen.detectors.autoencoder import AutoencoderDetector
    from robustgen.detectors.base import Detector
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.detectors.conditional_gan import ConditionalGANDetector
    from robustgen.detectors.conditional_vae import ConditionalVAEDetector
    from robustgen.detectors.cycle_gan import CycleGANDetector
    from robustgen.detectors.gan import GANDetector
    from robustgen.detectors.gat import GATDetector
    from robustgen.detectors.k_means import KMeansDetector
    from robustgen.detectors.pair_gan import PairGANDetector
    from robustgen.detectors.pca import PCADetector
    from robustgen.detectors.simhash import SimHashDetector
    from robustgen.detectors.style_gan import StyleGANDetector
    from robustgen.detectors.vae import VAEDetector
    from robustgen.errors import RobustgenError
    from robustgen.evaluation.adaptive import evade
    from robustgen.evaluation.reject_class import RejectClass
    from robustgen.evaluation.robustness import evaluate_attack
    from robustgen.evaluation.sampling import draw
    from robustgen.evaluation.translation import translate
    from robustgen.guard.guard import Guard
    from robustgen.metrics import auroc, proportion, rate_above, tpr_at_fpr
    from robustgen.models.load import load_model
    from robustgen.models.normalise import Normalised
    from robustgen.objectives import Misclassify
    from robustgen.threat import ThreatModel
    from robustgen.training.classifier import train as train_classifier
    from robustgen.training.descent import Recipe

_HOME = {
    "attacks.apgd": (
        "APGD",
        "APGDDLR",
        "APGDT",
    ),
    "attacks.apgd_minimal": ("MinimalAPGD",),
    "attacks.auto_attack": ("AutoAttack",),
    "attacks.bim": ("BIM",),
    "attacks.carlini_wagner": ("CarliniWagner",),
    "attacks.ddn": ("DDN",),
    "attacks.deepfool": ("DeepFool",),
    "attacks.fab": (
        "FAB",
        "FABT",
    ),
    "attacks.fmn": ("FMN",),
    "attacks.fooling": ("Fooling",),
    "attacks.hop_skip_jump": ("HopSkipJump",),
    "attacks.mi_fgsm": ("MIFGSM",),
    "attacks.sigma_zero": ("SigmaZero",),
    "attacks.square": ("Square",),
    "attacks.universal": ("Universal",),
    "attacks.art": ("art_classifier", "as_evasion_attack"),
    "attacks.base": ("Attack", "AttackResult"),
    "attacks.build": ("make_attack",),
    "attacks.fgsm": ("FGSM",),
    "attacks.pgd": ("PGD",),
    "artifacts": ("read_artifact", "staged"),
    "calibration": ("Threshold", "calibrate", "p_values"),
    "data.load": ("load_data",),
    "data.source": ("Batch", "DataSpec", "Source"),
    "detectors.autoencoder": ("AutoencoderDetector",),
    "detectors.base": ("Detector",),
    "detectors.calibrated": ("CalibratedDetector",),
    "detectors.conditional_gan": ("ConditionalGANDetector",),
    "detectors.conditional_vae": ("ConditionalVAEDetector",),
    "detectors.cycle_gan": ("CycleGANDetector",),
    "detectors.gan": ("GANDetector",),
    "detectors.gat": ("GATDetector",),
    "detectors.k_means": ("KMeansDetector",),
    "detectors.pair_gan": ("PairGANDetector",),
    "detectors.pca": ("PCADetector",),
    "detectors.simhash": ("SimHashDetector",),
    "detectors.style_gan": ("StyleGANDetector",),
    "detectors.vae": ("VAEDetector",),
    "errors": ("RobustgenError",),
    "evaluation.adaptive": ("evade",),
    "evaluation.reject_class": ("RejectClass",),
    "evaluation.robustness": ("evaluate_attack",),
    "evaluation.sampling": ("draw",),
    "evaluation.translation": ("translate",),
    "guard.guard": ("Guard",),
    "metrics": ("auroc", "proportion", "rate_above", "tpr_at_fpr"),
    "models.load": ("load_model",),
    "models.normalise": ("Normalised",),
    "objectives": ("Misclassify",),
    "threat": ("ThreatModel",),
    "training.classifier": ("train_classifier",),
    "training.descent": ("Recipe",),
}
_ALIASES = {"load_data": "load", "make_attack": "make", "train_classifier": "train"}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'robustgen' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"robustgen.{_MODULE[name]}"), _ALIASES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
