# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""How the outcome of a call is told: to its caller in one line, to log and trace in full (D12)."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from .coerce import mapping
from .errors import KINDS, Cancelled, StorageError, one_line
from .host import describe
from .methods import METHODS
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
    number = secrets.token_hex(4)
    logger.error("call %s: %s failed", number, call.method, exc_info=err)
    what = one_line(f"{type(err).__name__}: {err}")
    return f"internal error in plugin '{type_}', {call.method}: {what} (call {number} in its log)"


def _sendable(message: str) -> object:
    """Even a message with half a surrogate pair in it must reach the caller."""
    try:
        return raw(message)
    except UnicodeEncodeError:
        return message.encode("utf-8", "backslashreplace")


def trace_entry(
    call: Call, storeid: str, fields: dict[str, Any], outcome: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """A call as one entry of the trace; secrets never get there (D13)."""
    args = mapping(fields["args"])
    if isinstance(args.get("sensitive"), dict):
        args["sensitive"] = dict.fromkeys(args["sensitive"], "***")
    known = METHODS.get(call.method)
    if known and known.result == "hook" and isinstance(outcome.get("result"), dict):
        outcome = {"result": dict.fromkeys(outcome["result"], "***")}  # generated, shown once
    return {
        "method": call.method,
        "storeid": storeid,
        "args": args,
        "pid": call.host.pid,
        "command": call.host.command,
        "ms": round(seconds * 1000, 3),
        **outcome,
    }
