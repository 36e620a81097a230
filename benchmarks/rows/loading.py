# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading PVE::Storage with the shim and five manifests, against PVE::Storage alone.

Processor time, because whole processes on a busy machine wait for their turn.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from pve_pybridge.testing.perl import is_genuine

from ..figures import Figure, Outcome, Series, excess, milli
from ..stage import PLUGINS, Stage


def measure(stage: Stage) -> Iterator[Outcome]:
    """Pairs of fresh processes."""
    rounds = 5 if stage.short else 30
    load = ["-e", "use PVE::Storage;"]
    pair = [stage.perl(*load), stage.perl(*load, shim=False)]
    taken: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append(_cpu_seconds(stage, pair[which]))
    ours, without = (times[1:] for times in taken)
    difference = excess(ours, without)
    alone = statistics.median(without)
    name = f"load PVE::Storage, {len(PLUGINS)} manifests"
    which_pve = "PVE::Storage" if is_genuine() else "the stand-in, which is small"
    yield Figure(name, 1e3 * difference, "ms above", f"{which_pve} {milli(alone)}", "<= 5")
    yield Figure(
        f"{name}, share",
        100 * difference / alone,
        "% above",
        f"{which_pve} {milli(alone)}",
        "<= 2" if is_genuine() else "",
    )
    yield Series(
        "loading",
        "processor time in ms",
        "share of processes",
        samples={
            "with the shim": [1e3 * one for one in ours],
            "without": [1e3 * one for one in without],
        },
    )


def _cpu_seconds(stage: Stage, command: list[str]) -> float:
    pid = os.posix_spawnp(command[0], command, stage.env)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{command}: exit status {status}")
    return usage.ru_utime + usage.ru_stime
