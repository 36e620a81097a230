# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The closed set of errors a plugin raises and a caller of PVE gets to see.

`KINDS` is their one home: the wire, the shim, the documentation and the tests read it.  Anything
else a plugin raises leaves as ``internal``: one line with a call id, the traceback in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final


class StorageError(Exception):
    """A failure the administrator should read: one line, no traceback (``die "...\\n"`` in PVE)."""

    kind = "user"


class ParameterError(StorageError):
    """Wrong parameters: becomes PVE::Exception with code 400 and one message per field.

    *errors* maps the property or argument to what is wrong with it.
    """

    kind = "param"

    def __init__(self, errors: Mapping[str, str], message: str = "Parameter verification failed."):
        super().__init__(message)
        self.errors = dict(errors)


class NotSupported(StorageError):
    """The storage can't do this at all, whatever its state."""

    kind = "unsupported"


class DeadlineExceeded(StorageError):
    """The time of the call was up before the work was done."""

    kind = "timeout"


class RollbackBlocked(StorageError):
    """Rollback is impossible; *blockers* names the snapshots in the way (PVE's ``$blockers``)."""

    def __init__(self, message: str, blockers: Sequence[str] = ()):
        super().__init__(message)
        self.blockers = list(blockers)


class ProtocolError(StorageError):
    """A frame that can't be understood: one sentence, then the connection is closed."""

    kind = "protocol"


class Cancelled(BaseException):
    """The caller went away.  Not an Exception, so that ``except Exception`` doesn't swallow it."""

    kind = "cancelled"


KINDS: Final = {
    "user": "A failure described in one line; the caller dies with it.",
    "param": "Wrong parameters; the caller gets a PVE::Exception with code 400 and field errors.",
    "unsupported": "The storage type can't do this.",
    "cancelled": "The call was cancelled because its caller went away.",
    "timeout": "The deadline of the call passed.",
    "internal": "A bug in the plugin; the line carries the call id of the logged traceback.",
    "busy": "Too many callers at once; nothing was started.",
    "protocol": "The frame or its version was refused; the connection is closed.",
}
"""Error kind on the wire → meaning."""


def one_line(text: str) -> str:
    """*text* as the single line PVE shows: line breaks become spaces, nothing is lost."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip()) or "unknown error"
