# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What five manifests add to loading PVE::Storage, against PVE::Storage alone.

Processor time, because a busy machine lets processes wait.  What is added comes from pairs of
forked children, see loading.pl: whole processes differ by more than it is.  Its share is that of
whole processes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator

from pve_pybridge.testing.perl import is_genuine

from ..figures import Figure, Outcome, Series, excess, milli
from ..stage import PERL, PLUGINS, SHIM, Stage


def measure(stage: Stage) -> Iterator[Outcome]:
    """Pairs of children, then whole processes."""
    rounds = 20 if stage.short else 300
    script = [str(PERL / "loading.pl"), str(SHIM), str(rounds)]
    done = subprocess.run(
        stage.perl(*script), env=stage.env, check=True, stdout=subprocess.PIPE, text=True
    )
    taken = json.loads(done.stdout)
    difference = excess(taken["with"], taken["without"])

    load = stage.perl("-e", "use PVE::Storage;", shim=False)
    whole = [_cpu_seconds(stage, load) for _ in range(4 if stage.short else 20)]
    alone = statistics.median(whole[1:])
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
        "processor time in ms, all that PVE::Storage needs loaded before",
        "share of processes",
        samples={
            "with the shim": [1e3 * one for one in taken["with"]],
            "without": [1e3 * one for one in taken["without"]],
        },
    )


def _cpu_seconds(stage: Stage, command: list[str]) -> float:
    pid = os.posix_spawnp(command[0], command, stage.env)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{command}: exit status {status}")
    return usage.ru_utime + usage.ru_stime
