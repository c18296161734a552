"""The evasion attacks of ART 1.20 that take a PyTorch classifier of images or vectors, and why the others do not.

A literal table that imports nothing, so that listing and completion are instant. A test compares it with ART.
"""

from __future__ import annotations

from robustgen.errors import UsageError
from robustgen.registry import suggestion

PREFIX = "art:"

ART = {
    "AutoAttack": "ART's own selection: APGD, DeepFool, Square (Croce, Hein 2020); needs multiprocess",
    "AutoConjugateGradient": "conjugate gradients, two losses (Yamamura 2022)",
    "AutoProjectedGradientDescent": "APGD as ART has it (Croce, Hein 2020)",
    "BasicIterativeMethod": "small gradient steps (Kurakin 2017)",
    "BoundaryAttack": "random walk along the boundary, decisions only (Brendel 2018)",
    "BrendelBethgeAttack": "gradients along the boundary (Brendel 2019); needs numba",
    "CarliniL0Method": "fewest changed values (Carlini, Wagner 2017)",
    "CarliniL2Method": "smallest L2 change (Carlini, Wagner 2017)",
    "CarliniLInfMethod": "smallest Linf change (Carlini, Wagner 2017)",
    "CompositeAdversarialAttackPyTorch": "hue, contrast, rotation and PGD, for RGB (Hsiung 2023); needs kornia",
    "DeepFool": "steps to the nearest linearised boundary (Moosavi-Dezfooli 2016)",
    "ElasticNet": "L1 and L2 together (Chen 2018)",
    "FastGradientMethod": "one gradient step (Goodfellow 2015)",
    "HopSkipJump": "boundary normals from decisions (Chen 2020)",
    "LowProFool": "for tables, weighted by feature importance; targeted only (Ballet 2019)",
    "MomentumIterativeMethod": "gradient steps with momentum (Dong 2018)",
    "NewtonFool": "Newton steps on the label's probability (Jang 2017)",
    "PixelAttack": "few pixels, by evolution (Su 2019)",
    "ProjectedGradientDescent": "PGD (Madry 2018)",
    "ProjectedGradientDescentNumpy": "PGD in NumPy (Madry 2018)",
    "ProjectedGradientDescentPyTorch": "PGD in torch (Madry 2018)",
    "RescalingAutoConjugateGradient": "conjugate gradients, rescaled (Yamamura 2024)",
    "SaliencyMapMethod": "pairs of salient values, JSMA (Papernot 2016)",
    "ShadowAttack": "smooth shadows, a row at a time (Ghiasi 2020)",
    "SignOPTAttack": "signs of directional derivatives, decisions only (Cheng 2020)",
    "SimBA": "single DCT or pixel directions, scores only (Guo 2019)",
    "SpatialTransformation": "rotation and translation by --param max_rotation, max_translation (Engstrom 2019)",
    "SquareAttack": "random squares, scores only (Andriushchenko 2020)",
    "TargetedUniversalPerturbation": "one change for all inputs towards a class (Hirano 2020)",
    "ThresholdAttack": "any pixels by little, by evolution (Vargas 2019); needs cma",
    "UniversalPerturbation": "one change for all inputs (Moosavi-Dezfooli 2017)",
    "VirtualAdversarialMethod": "largest change of the output distribution (Miyato 2016)",
    "Wasserstein": "a Wasserstein ball, projected into the norm's (Wong 2019)",
    "ZooAttack": "finite differences, scores only (Chen 2017)",
}

EXCLUDED = {
    "AdversarialPatch": "it makes a patch, not a change of each input",
    "AdversarialPatchNumpy": "it makes a patch, not a change of each input",
    "AdversarialPatchPyTorch": "it makes a patch, not a change of each input",
    "AdversarialPatchTensorFlowV2": "it needs TensorFlow",
    "AdversarialTexturePyTorch": "it needs an object tracker",
    "CarliniWagnerASR": "it needs a speech recogniser",
    "DPatch": "it needs an object detector",
    "DecisionTreeAttack": "it needs a decision tree",
    "FeatureAdversariesNumpy": "it imitates other inputs, which have to be given one by one",
    "FeatureAdversariesPyTorch": "it imitates other inputs, which have to be given one by one",
    "FeatureAdversariesTensorFlowV2": "it needs TensorFlow",
    "FrameSaliencyAttack": "it works on the frames of videos",
    "GRAPHITEBlackbox": "it makes a sticker under a mask, which has to be given",
    "GRAPHITEWhiteboxPyTorch": "it makes a sticker under a mask, which has to be given",
    "GeoDA": "ART 1.20 calls numpy.mat in it, which NumPy 2 does not have",
    "HighConfidenceLowUncertainty": "it needs a Gaussian process",
    "ImperceptibleASR": "it needs a speech recogniser",
    "ImperceptibleASRPyTorch": "it needs a speech recogniser",
    "LaserAttack": "it needs generators of laser beams, made in code",
    "MalwareGDTensorFlow": "it works on the bytes of programs, in TensorFlow",
    "OverTheAirFlickeringPyTorch": "it works on the frames of videos",
    "OverloadPyTorch": "it needs an object detector",
    "ProjectedGradientDescentTensorFlowV2": "it needs TensorFlow",
    "RobustDPatch": "it needs an object detector",
    "SNAL": "it needs an object detector",
}

IMAGES = frozenset(
    {
        "BrendelBethgeAttack",
        "CarliniL0Method",
        "CompositeAdversarialAttackPyTorch",
        "PixelAttack",
        "ShadowAttack",
        "SimBA",
        "SpatialTransformation",
        "SquareAttack",
        "ThresholdAttack",
        "Wasserstein",
    }
)
"""Those that need images (channels, height, width)."""

VECTORS = frozenset({"LowProFool"})
"""Those that need vectors, one row of a table each."""

PROBABILITIES = frozenset({"LowProFool", "SimBA", "VirtualAdversarialMethod"})
"""Those that need the model's probabilities, where the others want its logits."""

TOWARDS = frozenset({"LowProFool", "TargetedUniversalPerturbation"})
"""Those with a targeted form only."""

OWN_BATCH = frozenset({"ShadowAttack", "SimBA", "ZooAttack"})
"""Those whose `batch_size` is not how many inputs go through the model at once."""

_PLAIN = {name.lower(): name for name in (*ART, *EXCLUDED)}


def art_name(name: str) -> str:
    """ART's class for `name`, with or without "art:", in any case, with or without dashes.

    Raises `UsageError` for a name that ART does not have, or an attack that cannot run here, with the reason.
    """
    asked = name.removeprefix(PREFIX)
    found = _PLAIN.get(asked.replace("-", "").replace("_", "").lower())
    if found is None:
        raise UsageError(suggestion(asked, ART, "attack of ART"))
    if found in EXCLUDED:
        raise UsageError(f"art:{found} cannot run here: {EXCLUDED[found]}")
    return found
