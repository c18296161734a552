"""Guards: a classifier and calibrated detectors as one system that classifies or rejects."""

from robustgen.guard.guard import Guard
from robustgen.guard.said import GuardOutput, GuardVerdicts

__all__ = ["Guard", "GuardOutput", "GuardVerdicts"]
