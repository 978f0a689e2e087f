"""The one family of errors that a person can meet.

Every message says what is wrong and, where known, in which file or key and what to do about it. The command line
prints the message (no traceback), writes FAILURE to status.json and exits with 1. Everything else is a defect.
"""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError when a disk, a quota or a limit takes no more."""


class OneFormerError(Exception):
    """What is wrong, `where` (file, line, key) and a `hint` that says what to do."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  -> {self.hint}" if self.hint else ""
        return f"{place}{self.what}{advice}"


class SpecError(OneFormerError):
    """The spec file or an override on the command line cannot be used."""


class DataError(OneFormerError):
    """A file of the data set is missing, unreadable or contradicts another."""


class CheckpointError(OneFormerError):
    """A checkpoint is missing, damaged or does not fit."""


class EngineError(OneFormerError):
    """An exported model or an engine is missing, foreign, or does not fit what it is asked for."""
