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
}
