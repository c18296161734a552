"""Protocols: how robustness and detection are measured, and the checks that say when a figure should not be
believed.
"""
