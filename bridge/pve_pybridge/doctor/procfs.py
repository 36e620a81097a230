# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The running PVE processes, from /proc: those written in Perl, which load all storage plugins.

Only those that see the same files as we do: a container may have a PVE of its own.  Their
environment says nothing, for Perl writes a process' title over it.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..alive import START_TIME, stat_of
from ..units import PVE_DAEMONS

_COMMANDS: Final = ("qm", "pct", "pvesm", "vzdump", "pvesh", "pvesr", "qmrestore", "qmeventd")
_NAME: Final = re.compile(rf"(?P<daemon>{'|'.join(PVE_DAEMONS)})(?P<worker> worker)?(?: .*)?")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A process of PVE."""

    pid: int
    parent: int
    title: str
    """What it calls itself: ``pvedaemon worker``, ``task UPID:…``, ``/usr/bin/perl …/qm``."""
    started: float
    """When it was forked; an exec since then doesn't show here."""

    @property
    def daemon(self) -> str | None:
        """The daemon it belongs to by its name."""
        match = _NAME.fullmatch(self.title)
        return match["daemon"] if match else None

    @property
    def is_worker(self) -> bool:
        """Forked by its daemon, to be replaced by it."""
        match = _NAME.fullmatch(self.title)
        return bool(match and match["worker"])


def pve_processes() -> dict[int, Process]:
    """All of them, by number."""
    proc = Path("/proc")
    boot = time.time() - float((proc / "uptime").read_text().split()[0])
    found = {}
    for directory in proc.iterdir():
        if directory.name.isdigit() and (one := _process(directory, boot)):
            found[one.pid] = one
    return found


def _process(directory: Path, boot: float) -> Process | None:
    """One of PVE's, None for any other and for one that has just ended."""
    try:
        if not os.readlink(directory / "exe").rpartition("/")[2].startswith("perl"):
            return None
        words = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        title = " ".join(words).strip()
        if not _is_pve(title, words):
            return None
        if os.readlink(directory / "ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return None
        fields = stat_of(int(directory.name))
    except OSError:
        return None
    started = boot + int(fields[START_TIME]) / _TICKS
    return Process(int(directory.name), int(fields[1]), title, started)


def _is_pve(title: str, words: list[str]) -> bool:
    if _NAME.fullmatch(title) or title.startswith("task UPID:"):
        return True
    names = (word.rpartition("/")[2] for word in words if not word.startswith("-"))
    script = next((name for name in names if not name.startswith("perl")), "")
    return script in _COMMANDS or script in PVE_DAEMONS
