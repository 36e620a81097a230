# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Daemons that outlive the plugin server: what serves a guest's disk must not end with it.

``storage.run`` ends its command with the call, and systemd ends everything in the server's cgroup
with the server.  So a daemon gets a transient unit where systemd runs, and elsewhere a session of
its own, which it makes itself: it has to be one that goes to the background when it is ready.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..alive import stat_of
from ..errors import StorageError
from ..paths import systemd_dir
from ..storage import Storage

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_FLAGS: Final = 6
_PF_EXITING: Final = 0x4


def start(storage: Storage[Any], unit: str, command: Sequence[str], pidfile: Path) -> None:
    """Start *command*, which goes to the background, and return when it has.

    The command line must name *pidfile*.  With systemd it is the unit *unit*, stopped at shutdown
    after the guests (PVE stops those in pve-guests.service).
    """
    if systemd_dir().is_dir():
        storage.run(["systemctl", "stop", f"{unit}.service"], check=False, timeout=_START_SECONDS)
        properties = ("Type=forking", f"PIDFile={pidfile}", "Before=pve-guests.service")
        command = [
            *("systemd-run", f"--unit={unit}", "--collect", "--quiet"),
            *(f"--property={one}" for one in properties),
            *("--", *command),
        ]
    storage.run(command, timeout=_START_SECONDS)


def pid_of(pidfile: Path) -> int | None:
    """The daemon's process, if it still is the one that wrote *pidfile*.

    A process that is ending has no arguments any more, but maybe still its files and locks.
    """
    try:
        pid = int(pidfile.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        state, *_ = stat = stat_of(pid)
    except (OSError, ValueError):
        return None
    is_ending = int(stat[_FLAGS]) & _PF_EXITING and state not in "ZX"
    return pid if os.fsencode(pidfile) in arguments or is_ending else None


def wait_gone(storage: Storage[Any], pidfile: Path) -> None:
    """Return when the daemon has ended."""
    ends = time.monotonic() + _STOP_SECONDS
    while (pid := pid_of(pidfile)) is not None:
        if time.monotonic() > ends:
            raise StorageError(f"process {pid} ('{pidfile}') doesn't end")
        storage.sleep(0.01)


def stop(storage: Storage[Any], pidfile: Path) -> None:
    """End the daemon; fine if there is none."""
    pid = pid_of(pidfile)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_gone(storage, pidfile)
