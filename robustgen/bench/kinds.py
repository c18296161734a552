"""What a suite may ask for, by name. A literal table: nothing is imported before it is used.

Detectors, guards and attacks are made for those that need them.
"""

from __future__ import annotations

from robustgen.registry import Entry

KINDS = {
    "classifier": Entry("robustgen.bench.prepared:Classifier", "train a classifier, plainly or adversarially"),
    "adversarial": Entry("robustgen.bench.guarded:Adversarial", "a guard against attackers of every threat model"),
    "one-class": Entry("robustgen.bench.one_class:OneClass", "tell one class from the others"),
    "out-of-distribution": Entry("robustgen.bench.foreign:OutOfDistribution", "tell foreign inputs from normal ones"),
    "table": Entry("robustgen.bench.tables:TableOf", "tell anomalous rows of a labelled table from normal ones"),
    "vae-vs-gan": Entry("robustgen.bench.generators:Generator", "a generative detector: samples, fidelity, detection"),
}
