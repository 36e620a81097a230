# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""How an error is told: to the caller in one line, to the log in full (D12)."""

from __future__ import annotations

import logging
import os

from .errors import KINDS, Cancelled, StorageError, one_line
from .host import describe
from .plan import WrongAnswer
from .results import nested, raw
from .storage import Call

logger = logging.getLogger(__name__)


def error_of(err: BaseException, call: Call, type_: str, *, draining: bool) -> dict[str, object]:
    """The error as it goes on the wire."""
    return {**nested(describe(err)), "message": _sendable(_message(err, call, type_, draining))}


def _message(err: BaseException, call: Call, type_: str, draining: bool) -> str:
    """The one line a caller sees; a bug's traceback goes to the log, by the call's id."""
    if isinstance(err, StorageError) and err.kind in KINDS:
        return one_line(str(err))
    if isinstance(err, Cancelled):
        why = "the plugin server ends" if draining else "its caller went away"
        return f"{call.method}: cancelled, because {why}"
    number = os.urandom(4).hex()
    logger.error("call %s: %s failed", number, call.method, exc_info=err)
    if isinstance(err, WrongAnswer):
        return one_line(f"plugin '{type_}', {err} (call {number} in its log)")
    what = one_line(f"{type(err).__name__}: {err}")
    return f"internal error in plugin '{type_}', {call.method}: {what} (call {number} in its log)"


def _sendable(message: str) -> object:
    """Even a message with half a surrogate pair in it must reach the caller."""
    try:
        return raw(message)
    except UnicodeEncodeError:
        return message.encode("utf-8", "backslashreplace")
