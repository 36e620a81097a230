# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Who made something, and does that process still live?  For marks that a killed process leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

START_TIME: Final = 19
"""Where ``stat_of`` has the clock ticks at which a process was forked."""


def me() -> str:
    """This process, told apart from any later one with the same number."""
    return f"{os.getpid()}-{_started(os.getpid())}"


def is_alive(process: str) -> bool:
    """Whether the process that ``me`` named is still there."""
    pid, _, started = process.partition("-")
    return pid.isdigit() and _started(int(pid)) == started


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; OSError when there is no such process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _started(pid: int) -> str:
    try:
        return stat_of(pid)[START_TIME]
    except OSError:
        return ""
