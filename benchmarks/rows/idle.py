# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A server nobody asks anything, with one caller connected; and how long its start takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pve_pybridge.client import Client

from ..figures import Figure, Outcome, milli
from ..stage import PLUGINS, Stage

IMPORTS: Final = """
import time
start = time.perf_counter()
import pve_pybridge.cli.serve
print(time.perf_counter() - start)
"""


def measure(stage: Stage) -> Iterator[Outcome]:
    """Memory, wake-ups, import."""
    seconds = 2 if stage.short else 10
    # The stage's own is the first of all and compiled the bridge: 5 MiB that a node never sees.
    pid = stage.serve(PLUGINS[0], "idle").pid
    with Client("bench", stage.run / "idle.sock") as client:
        client.call("_stats")
        time.sleep(1)
        before = _switches(pid)
        time.sleep(seconds)
        wakeups = (_switches(pid) - before) / seconds
    bare = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/status').read())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    yield Figure("idle server, wake-ups", wakeups, "a second", f"over {seconds} s", "<= 0")
    mib = _field(Path(f"/proc/{pid}/status").read_text(), "VmRSS") / 1024
    python = _field(bare, "VmRSS") / 1024
    yield Figure("idle server, memory", mib, "MiB", f"bare Python {python:.1f} MiB", "<= 22")
    rounds = 5 if stage.short else 40
    imports, starts = [], []
    for _ in range(rounds + 1):  # the first one compiles
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        starts.append(time.perf_counter() - start)
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS], env=stage.env, capture_output=True, check=True
        )
        imports.append(float(done.stdout))
    yield Figure(
        "import of the server",
        1e3 * statistics.median(imports[1:]),
        "ms",
        f"bare Python's start {milli(statistics.median(starts))}",
        "<= 60",
    )


def _switches(pid: int) -> int:
    """How often any thread was put to sleep and woken again."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(_field(task.read_text(), "voluntary_ctxt_switches") for task in tasks)


def _field(text: str, key: str) -> int:
    return int(text.partition(f"\n{key}:")[2].split()[0])
