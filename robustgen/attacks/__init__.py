"""Attacks: programs that look for a legal change of an input that changes the model's answer.

One file per method. Import an attack from its file or from `robustgen`; `ATTACKS` is the list of names, without loading
torch.
"""

from robustgen.registry import Entry

ATTACKS = {
    "fgsm": Entry("robustgen.attacks.fgsm:FGSM", "one gradient step of length eps (Goodfellow 2015)"),
    "bim": Entry("robustgen.attacks.bim:BIM", "small gradient steps from the clean input (Kurakin 2017)"),
    "mi-fgsm": Entry("robustgen.attacks.mi_fgsm:MIFGSM", "gradient steps with momentum (Dong 2018)"),
    "pgd": Entry("robustgen.attacks.pgd:PGD", "projected gradient ascent, random starts and restarts (Madry 2018)"),
    "apgd-ce": Entry("robustgen.attacks.apgd:APGD", "PGD that chooses its own steps, on cross-entropy (Croce 2020)"),
    "apgd-dlr": Entry("robustgen.attacks.apgd:APGDDLR", "the same on the difference of logits ratio (Croce 2020)"),
    "apgd-t": Entry("robustgen.attacks.apgd:APGDT", "the same towards one wrong class after another (Croce 2020)"),
    "apgd-minimal": Entry(
        "robustgen.attacks.apgd_minimal:MinimalAPGD",
        "smallest change, by apgd in balls that close in on it (Croce 2020)",
    ),
    "fab": Entry("robustgen.attacks.fab:FAB", "smallest change, along the linearised boundary (Croce 2020)"),
    "fab-t": Entry("robustgen.attacks.fab:FABT", "the same towards one wrong class after another (Croce 2020)"),
    "square": Entry(
        "robustgen.attacks.square:Square", "random search with squares, no gradients (Andriushchenko 2020)"
    ),
    "auto-attack": Entry(
        "robustgen.attacks.auto_attack:AutoAttack", "worst of apgd-ce, apgd-t, fab-t, square (Croce 2020)"
    ),
    "carlini-wagner": Entry(
        "robustgen.attacks.carlini_wagner:CarliniWagner", "smallest L2 change, by Adam on a penalty (Carlini 2017)"
    ),
    "ddn": Entry("robustgen.attacks.ddn:DDN", "smallest L2 change, direction and norm apart (Rony 2019)"),
    "fmn": Entry("robustgen.attacks.fmn:FMN", "smallest change in Linf, L2 or L1, fast (Pintor 2021)"),
    "deepfool": Entry("robustgen.attacks.deepfool:DeepFool", "nearest linearised boundary (Moosavi-Dezfooli 2016)"),
    "sigma-zero": Entry("robustgen.attacks.sigma_zero:SigmaZero", "fewest changed values, L0 (Cinà 2025)"),
    "hop-skip-jump": Entry(
        "robustgen.attacks.hop_skip_jump:HopSkipJump", "smallest change from decisions alone (Chen 2020)"
    ),
    "universal": Entry("robustgen.attacks.universal:Universal", "one change for all inputs (Moosavi-Dezfooli 2017)"),
    "fooling": Entry("robustgen.attacks.fooling:Fooling", "from noise to a confident class (Nguyen 2015)"),
}
