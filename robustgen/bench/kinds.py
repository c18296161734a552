"""What a cell can be, by the name that a suite uses. A literal table: nothing is imported before it is used."""

from __future__ import annotations

from robustgen.registry import Entry

KINDS = {
    "classifier": Entry("robustgen.bench.prepared:Classifier", "train a classifier, plainly or adversarially"),
    "detector": Entry("robustgen.bench.prepared:Fit", "fit and calibrate a detector"),
    "guard": Entry("robustgen.bench.guarded:GuardOf", "a classifier and detectors as classify-or-reject"),
    "adversarial": Entry("robustgen.bench.guarded:Adversarial", "a guard against attackers of every threat model"),
    "one-class": Entry("robustgen.bench.one_class:OneClass", "tell one class from the others"),
    "out-of-distribution": Entry("robustgen.bench.foreign:OutOfDistribution", "tell foreign inputs from normal ones"),
    "table": Entry("robustgen.bench.tables:TableOf", "tell anomalous rows of a labelled table from normal ones"),
    "vae-vs-gan": Entry("robustgen.bench.generators:Generator", "a generative detector: samples, fidelity, detection"),
}
