# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A successor for a running server: ``systemctl reload``, which is how packages bring new code.

A restart would have callers wait until the last call is done, or end calls that take hours.  So
the successor starts beside the old process, on the same listening socket, and says when it is
ready; only then the old one stops accepting, and ends when its calls have.  A successor that can't
start changes nothing.  Used by ``serve``, only where systemd has handed the socket over.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .listen import SYSTEMD_FD
from .notify import notify

logger = logging.getLogger(__name__)

_READY_FD: Final = "PVE_PYBRIDGE_READY_FD"

# Leaves the successor to systemd, who must learn when it ends; each number is that of the process.
_START: Final = """
sh -c 'LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"' sh "$@" &
"""


class Takeover:
    """Starts successors of this process, one at a time, until one is ready."""

    def __init__(self, arguments: Sequence[str], ready: Callable[[], None]):
        """*arguments* of the command ``pve-pybridge``; *ready* is called from another thread."""
        self._arguments = arguments
        self._ready = ready
        self._running = False
        self.done = False

    def start(self) -> None:
        """Start a successor, unless one is on its way; safe in a signal handler."""
        if self._running or self.done:
            return
        self._running = True
        threading.Thread(target=self._start, name="takeover", daemon=True).start()

    def _start(self) -> None:
        import subprocess  # noqa: PLC0415  every server would load it, for a rare reload

        reader, writer = os.pipe()
        try:
            subprocess.run(
                ["/bin/sh", "-c", _START, "sh", *_program(), *self._arguments],
                env={**os.environ, _READY_FD: str(writer)},
                pass_fds=(SYSTEMD_FD, writer),
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as err:
            logger.error("can't start a successor: %s", err)
        finally:
            os.close(writer)
        with open(reader, "rb") as pipe:
            self.done = pipe.read(1) != b""
        self._running = False
        if self.done:
            self._ready()
        else:
            logger.error("the successor did not start, going on without it")


def is_successor() -> bool:
    """Whether another process still serves in our place."""
    return _READY_FD in os.environ


def announce() -> None:
    """We serve now: tell systemd, and whom we succeed."""
    notify(f"READY=1\nMAINPID={os.getpid()}")
    descriptor = os.environ.pop(_READY_FD, "")
    if descriptor:
        with open(int(descriptor), "wb") as pipe:
            pipe.write(b"1")


def _program() -> list[str]:
    """The command as it was started, by Debian's own Python: a manifest may name another now."""
    import shutil  # noqa: PLC0415  3 ms and 0.5 MiB that a server needs once, if ever

    name = Path(sys.argv[0]).name
    found = None if name == "__main__.py" else shutil.which(name)
    return [found] if found else [sys.executable, "-m", "pve_pybridge"]
