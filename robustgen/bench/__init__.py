"""Benchmarks: a suite is a list of measurements, each stored under the hash of its configuration and never run twice.

`SUITES` are the ones that ship, by name; a user's own is a TOML file of the same form.
"""

from __future__ import annotations

SUITES = {
    "quick": "handwritten digits in two minutes: a few detectors and a guard, attacked with and without knowing them",
    "one-class": "one class of Fashion-MNIST is normal, the nine others are not",
    "out-of-distribution": "Fashion-MNIST is normal; digits, letters, noise, blank and turned images are not",
    "tables": "ADBench's classical tables, fitted on normal rows or on rows that hold anomalies",
    "adversarial-standard": "Fashion-MNIST: all detectors against all threat models, three seeds (hours)",
    "vae-vs-gan": "generative detectors: what they make, give back and catch",
}
