"""Guards: a classifier and calibrated detectors as one system that classifies or rejects."""

from robustgen.guard.guard import Guard, GuardOutput, GuardVerdicts

__all__ = ["Guard", "GuardOutput", "GuardVerdicts"]
