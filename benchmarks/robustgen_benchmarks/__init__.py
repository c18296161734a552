"""Measurements, committed with the command that made them: peers side by side, and parity with the reference."""
