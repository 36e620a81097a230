# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""How a connection begins: ``hello`` says who calls, ``welcome`` who answers."""

from __future__ import annotations

import os
from typing import Any

from . import codec
from .callers import Callers
from .coerce import integer, mapping, strings, text
from .errors import ProtocolError
from .frames import FrameSocket, field
from .methods import TABLE_VERSION
from .model import Host as Caller
from .version import __version__


def greet(frames: FrameSocket, type_: str, callers: Callers) -> tuple[Caller, bool]:
    """Who calls, and whether it takes lists in parts; ProtocolError for whom we don't serve."""
    frames.check_peer()
    message = frames.receive()
    if message[0] != "hello":
        raise ProtocolError(f"expected hello, got {message[0]}")
    about = field("hello", "about", mapping, message[1])
    _check_version(about, type_)
    command = field("hello", "command", text, about.get("command") or "")
    caller = Caller(
        apiver=field("hello", "apiver", integer, about.get("apiver") or 0),
        apiage=field("hello", "apiage", integer, about.get("apiage") or 0),
        hints=frozenset(field("hello", "hints", strings, about.get("hints") or [])),
        pid=field("hello", "pid", integer, about.get("pid") or 0),
        command=command,
        task=next((word for word in command.split() if word.startswith("UPID:")), ""),
    )
    callers.note(
        caller,
        shim=field("hello", "shim", integer, about.get("shim") or 0),
        loaded=field("hello", "loaded", integer, about.get("loaded") or 0),
    )
    welcome = {
        "wire": codec.WIRE_VERSION,
        "table": TABLE_VERSION,
        "version": __version__,
        "type": type_,
        "pid": os.getpid(),
    }
    frames.send("welcome", welcome)
    return caller, bool(about.get("parts"))


def _check_version(about: dict[str, Any], ours: str) -> None:
    wire, type_ = about.get("wire"), about.get("type")
    if wire != codec.WIRE_VERSION:
        raise ProtocolError(
            f"the shim speaks wire version {wire}, this plugin server {codec.WIRE_VERSION}: "
            "install the same release of both and restart the older one"
        )
    if type_ != ours:
        raise ProtocolError(f"this server is for type '{ours}', not '{type_}'")
