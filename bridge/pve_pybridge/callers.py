# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Which processes called this server, and since when they have the shim and manifests they have.

PVE's daemons replace themselves by exec, which the kernel doesn't date, so nobody but the process
itself can say what it has loaded.  ``pve-pybridge doctor`` asks for this.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from .model import Host

_MOST: Final = 512


class Callers:
    """The latest callers of one server, as long as they live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, dict[str, object]] = {}

    def note(self, caller: Host, *, shim: int, loaded: int) -> None:
        """One that said hello; callers that don't tell what they have are not kept."""
        if not loaded or not caller.pid:
            return
        with self._lock:
            if len(self._known) >= _MOST:
                self._known = {pid: one for pid, one in self._known.items() if _lives(pid)}
            while len(self._known) >= _MOST:
                self._known.pop(next(iter(self._known)))
            self._known.pop(caller.pid, None)
            self._known[caller.pid] = {
                "pid": caller.pid,
                "command": caller.command,
                "shim": shim,
                "loaded": loaded,
                "seen": time.time(),
            }

    def snapshot(self) -> list[dict[str, object]]:
        """As plain data."""
        with self._lock:
            return [dict(one) for pid, one in self._known.items() if _lives(pid)]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
