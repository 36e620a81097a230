# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Running PVE processes that have an older shim or manifest than there is now.

Perl keeps no file open and PVE's daemons reload by exec, which the kernel doesn't date.  So it is
the best witness that says whether a process has what there is now:

1. the process itself: each caller tells its server when it loaded the shim;
2. its start: what started since, has it, and what was forked before and never does exec, has not;
   what was forked since has what its parent has;
3. for a daemon that was there before: one of its workers in its own words; systemd, which did the
   last reload; and that it forks workers right after a reload.

Without any of these it is said that nothing is known.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .. import record, units
from ..errors import StorageError
from .findings import Finding, Report, warning
from .node import Node
from .procfs import Process

_SLACK: Final = 1.5
"""Clock ticks and whole seconds."""


def check(node: Node, report: Report) -> None:
    """Compare each one's time with that of the newest file it should have."""
    processes = node.processes()
    report.summary = f"PVE processes: {len(processes)}"
    present = record.loaded_since()
    if present is None or not processes:
        return
    changed, newest = present
    times = Times(processes, _told(node, processes), changed - _SLACK)
    for pid in sorted(processes):
        current = times.is_current(processes[pid])
        if not current:
            report.add([_finding(processes[pid], str(newest), changed, current)])


def _finding(process: Process, newest: str, changed: float, current: bool | None) -> Finding:
    where = f"process {process.pid} ({process.title[:60]})"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed))
    have = f"what is there since {at} (newest: {newest})"
    if current is None:
        what = f"it may not have {have}: whether it reloaded since can't be told"
    else:
        what = f"it does not have {have}"
    if process.daemon is None:
        return warning(where, what, "nothing to do: it will end by itself")
    return warning(where, what, f"systemctl reload-or-try-restart {process.daemon}")


def _told(node: Node, processes: Mapping[int, Process]) -> dict[int, float]:
    """Process → when it loaded the shim, in its own words to one of the servers."""
    told: dict[int, float] = {}
    for manifest in node.manifests():
        try:
            callers = node.server(manifest.type)["callers"] if node.expected(manifest.type) else []
        except (StorageError, ImportError, KeyError):  # the check of servers tells
            continue
        for caller in callers:
            process = processes.get(caller["pid"])
            if process and caller["seen"] + _SLACK >= process.started:  # not the number's last user
                told[process.pid] = max(told.get(process.pid, 0), caller["loaded"])
    return told


@dataclass(frozen=True)
class Times:
    """Who has what there is now; None for who knows."""

    processes: Mapping[int, Process]
    told: Mapping[int, float]
    changed: float

    def is_current(self, process: Process) -> bool | None:
        """Whether a process loaded its plugins after the last change."""
        told = self.told.get(process.pid)
        forked = process.is_worker or process.title.startswith("task ")
        if told is not None and (told >= self.changed or forked):  # others may do exec after it
            return told >= self.changed
        recent = self._is_recent(process)
        parent = self.processes.get(process.parent)
        if forked and recent and parent:
            return self.is_current(parent)
        if recent or forked or process.daemon is None:
            return recent
        return self._has_reloaded(process)

    def _has_reloaded(self, daemon: Process) -> bool | None:
        workers = [one for one in self.processes.values() if one.parent == daemon.pid]
        if any(self.told.get(one.pid, 0) >= self.changed for one in workers):
            return True
        reload = _last_reload(daemon)
        if reload is not None:
            return reload >= self.changed
        if daemon.pid in self.told or (workers and not any(map(self._is_recent, workers))):
            return False
        return None

    def _is_recent(self, process: Process) -> bool:
        return process.started >= self.changed


def _last_reload(daemon: Process) -> float | None:
    """When systemd last reloaded the daemon, 0 for never; None where systemd doesn't know it."""
    if not units.systemd_runs():
        return None
    try:
        found = units.show(f"{daemon.daemon}.service", "MainPID", "ExecReload")
    except StorageError:
        return None
    match = re.search(r"start_time=\[([^]]+)\]", found.get("ExecReload", ""))
    if found.get("MainPID") != str(daemon.pid):
        return None
    if not match or match[1] == "n/a":
        return 0.0
    done = subprocess.run(
        ["date", "--date", match[1], "+%s"], capture_output=True, text=True, timeout=5, check=False
    )
    return float(done.stdout) if done.returncode == 0 else None
