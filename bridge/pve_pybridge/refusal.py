# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A server that can't start tells why to those who wait for it, as systemd started it for them.

Else they would wait until their time is up, and systemd, seeing them wait, would start it again and
again.  Works without msgpack, whose absence may be the very reason.  Called where a command fails.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Final

from .listen import SYSTEMD_FD, is_inherited
from .takeover import is_successor

_SEND_SECONDS: Final = 1.0


def refuse_waiting(reason: str) -> None:
    """Answer the callers in systemd's socket; not ours to do while a predecessor serves them."""
    if not is_inherited() or is_successor():
        return
    frame = _error(reason)
    with socket.socket(fileno=os.dup(SYSTEMD_FD)) as listener, contextlib.suppress(OSError):
        listener.setblocking(False)  # shared with systemd, which doesn't accept itself
        while True:
            caller, _ = listener.accept()
            with caller, contextlib.suppress(OSError):
                caller.settimeout(_SEND_SECONDS)
                caller.sendall(frame)


def _error(message: str) -> bytes:
    """The frame ``["error", 0, {"kind": "user", "message": message}]``, see docs/protocol.md."""
    text = message.encode("utf-8", "replace")[:4096].decode("utf-8", "ignore").encode()
    payload = b"\x93\xa5error\x00\x82\xa4kind\xa4user\xa7message\xdb"
    payload += struct.pack(">I", len(text)) + text
    return struct.pack(">I", len(payload)) + payload
