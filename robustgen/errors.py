"""Errors a user can act on. Every message says what was asked, what came, and what to do."""

from __future__ import annotations


class RobustgenError(Exception):
    """A run that failed for a reason worth one line. Its `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(RobustgenError, ValueError):
    """The call itself was wrong: an unknown name, a value out of range, a shape that does not fit."""

    exit_code = 2


class DataError(UsageError):
    """The inputs cannot be used: missing, empty, unreadable, of the wrong shape or type, or not finite."""


class ArtifactError(UsageError):
    """A trained thing on disk is missing, damaged, changed since it was written, or of a newer version."""


class OutputError(RobustgenError):
    """A result could not be written: it exists already, permission is missing, or the disk is full."""


class MissingPackageError(UsageError):
    """An optional package is needed for what was asked."""
