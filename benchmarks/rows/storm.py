# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""After a power failure: 200 guests with two disks each, started from 32 processes at a time."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from pve_pybridge.alive import stat_of

from ..figures import Figure, Outcome, Series, shown
from ..stage import Stage

AT_ONCE = 32


def measure(stage: Stage) -> Iterator[Outcome]:
    """Each guest in a fresh process; the bridge's part is what native doesn't need."""
    guests, spawned = (40, 10) if stage.short else (200, 60)
    rounds = 2 if stage.short else 5
    taken: dict[str, list[float]] = {"bridge": [], "native": [], "spawn": []}
    cpu: dict[str, list[float]] = {"bridge": [], "native": []}
    with stage.worker() as worker:
        for _ in range(rounds):
            for who, seconds in cpu.items():
                before = _server_cpu(stage.server.pid)
                done = worker.do(
                    "storm", what="vm-start", who=who, guests=guests, processes=AT_ONCE
                )
                taken[who].append(done["wall"])
                seconds.append(done["cpu"] + _server_cpu(stage.server.pid) - before)
        done = worker.do("storm", what="vm-start", who="spawn", guests=spawned, processes=AT_ONCE)
        taken["spawn"].append(done["wall"] * guests / spawned)
    bridge, native, spawn = (statistics.median(parts) for parts in taken.values())
    name = f"start storm of {guests} guests"
    yield Figure(name, 100 * (bridge - native) / spawn, "%", f"of spawn's {shown(spawn)} s", "<= 5")
    yield Figure(f"{name}, against native", bridge / native, "x", f"native {shown(native)} s", "")
    extra = 1e3 * (statistics.median(cpu["bridge"]) - statistics.median(cpu["native"])) / guests
    yield Figure(f"{name}, processor time", extra, "ms/guest above", "native", "")
    yield Series(
        "start storm",
        "seconds until all have started",
        "",
        bars={"seconds": {"bridge": bridge, "native": native, "spawn": spawn}},
    )


def _server_cpu(pid: int) -> float:
    words = stat_of(pid)
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
