"""Makes fab.json: the norms that the authors' FAB finds (fra31/auto-attack, git revision of 2023-01-09), one run of 30
steps towards the class with the second largest logit ("fab-t") or the nearest class ("fab"), for `rows` of test_fab.py.

python tests/attacks/reference/fab.py CHECKOUT_OF_AUTO_ATTACK > tests/attacks/reference/fab.json
"""

import json
import sys

sys.path[:0] = [sys.argv[1], "tests", "tests/attacks"]

from autoattack.fab_pt import FABAttack_PT  # noqa: E402
from test_fab import rows  # noqa: E402

from robustgen.threat import ThreatModel  # noqa: E402

model, x, y = rows()
found = {}
for norm, eps in (("linf", 1.0), ("l2", 100.0), ("l1", 1000.0)):
    attack = FABAttack_PT(model, norm={"linf": "Linf"}.get(norm, norm.upper()), n_iter=30, eps=eps, device="cpu")
    attack.target_class = 2
    for name in ("fab", "fab-t"):
        x_adv = attack.attack_single_run(x, y, is_targeted=name == "fab-t")
        found[f"{name} {norm}"] = [round(d, 7) for d in ThreatModel(norm, eps).distance(x_adv, x).tolist()]
sys.stdout.write(json.dumps(found, indent=1))
