# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``list_images`` of many volumes: time against pack, transfer and unpack of the same rows; memory.

Memory is what a process holds at most while it lists, against what the rows take once they are
there: hashes in Perl, objects in Python.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..figures import Figure, Outcome, Series, milli, ratio, typical
from ..stage import Stage

COUNTS: Final = (1_000, 10_000, 100_000)

ROWS_IN_PYTHON: Final = """
import sys
from benchmarks.volumes import volumes
from benchmarks.rows.listing import memory
before = memory("self", "VmRSS")
kept = volumes(int(sys.argv[1]))
print(memory("self", "VmRSS") - before)
"""


def measure(stage: Stage) -> Iterator[Outcome]:
    """Memory first, while the server is fresh; then bridge and floor in turn for each size."""
    yield from _memory(stage, COUNTS[-1])
    points: dict[str, list[tuple[float, float]]] = {"bridge": [], "floor": []}
    for count in COUNTS:
        rounds = min(100, max(3, (50_000 if stage.short else 400_000) // count))
        with stage.worker() as worker:
            taken = worker.do(
                "time", what=f"listing-{count}", who=["bridge", "floor"], rounds=rounds, calls=1
            )
        for who, parts in taken.items():
            points[who].append((count, 1e3 * typical(parts)))
        if count > COUNTS[0]:
            yield Figure(
                f"list_images of {count:,} volumes",
                ratio(taken["bridge"], taken["floor"]),
                "x",
                f"floor {milli(typical(taken['floor']))}",
                "<= 1.3",
            )
    growth = {who: dict(line)[COUNTS[2]] / dict(line)[COUNTS[1]] for who, line in points.items()}
    yield Figure(
        "list_images, growth from 10,000 to 100,000",
        growth["bridge"] / growth["floor"],
        "x",
        f"floor's growth {growth['floor']:.1f}",
        "<= 1.1",
    )
    yield Series("list_images", "volumes", "ms", lines=points)


def _memory(stage: Stage, count: int) -> Iterator[Outcome]:
    with stage.worker() as worker:
        decoded = worker.do("memory", what=f"listing-{count}", who="rows")
        server = stage.server.pid
        before = memory(server, "VmRSS")
        ours = worker.do("memory", what=f"listing-{count}", who="bridge")
        peak = memory(server, "VmHWM") - before
    rows = decoded["after"] - decoded["before"]
    yield Figure(
        f"list_images of {count:,}, peak memory of the caller",
        (ours["peak"] - ours["before"]) / rows,
        "x",
        f"rows as Perl's hashes {rows // 1024} MiB",
        "<= 2",
    )
    command = [sys.executable, "-c", ROWS_IN_PYTHON, str(count)]
    done = subprocess.run(command, env=stage.env, capture_output=True, check=True)
    volumes = int(done.stdout)
    yield Figure(
        f"list_images of {count:,}, peak memory of the server",
        peak / volumes,
        "x",
        f"rows as Python's objects {volumes // 1024} MiB",
        "<= 2",
    )


def memory(pid: int | str, key: str) -> int:
    """A figure of /proc/<pid>/status, KiB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"\n{key}:")[2].split()[0])
