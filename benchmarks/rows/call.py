# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One small call through the generated class, warm: ``activate_volume`` with hints."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..figures import Figure, Outcome, Series, micro, milli, p99, ratio, typical
from ..stage import Stage


def measure(stage: Stage) -> Iterator[Outcome]:
    """Bridge against floor, spawn and the other ways to reach code."""
    rounds = 15 if stage.short else 80
    who = ["bridge", "floor", "native", *(["bare"] if stage.has_echo else [])]
    with stage.worker() as worker:
        taken = worker.do("time", what="small", who=who, rounds=rounds, calls=200, warm=3)
        spawn = worker.do(
            "time", what="small", who=["spawn"], rounds=3 if stage.short else 10, calls=2
        )
        taken |= spawn
    if _has_inline():
        with stage.worker() as worker:  # of its own: Python in its process changes it
            taken |= worker.do("time", what="small", who=["inline"], rounds=rounds, calls=200)
    ours, floor = taken["bridge"], taken["floor"]
    yield Figure(
        "small call, median", ratio(ours, floor), "x", f"floor {micro(typical(floor))}", "<= 1.5"
    )
    yield Figure(
        "small call, p99",
        ratio(ours, floor, p99),
        "x",
        f"floor {micro(typical(floor, p99))}",
        "<= 2",
    )
    yield Figure(
        "small call, times faster than spawn",
        typical(taken["spawn"]) / typical(ours),
        "x",
        f"spawn {milli(typical(taken['spawn']))}",
        ">= 500",
    )
    alone = _one_processor(stage, rounds)
    yield Figure(
        "small call on one processor",
        ratio(alone["bridge"], alone["floor"]),
        "x",
        f"floor {micro(typical(alone['floor']))}",
        "",
    )
    yield Figure("small call, bridge", typical(ours) * 1e6, "µs", "", "")
    for name in ("bare", "inline", "native"):
        if name in taken:
            median = typical(taken[name])
            yield Figure(
                f"small call, {name}", typical(ours) / median, "x", f"{name} {micro(median)}", ""
            )
    yield Series(
        "small call",
        "time of one call in µs",
        "share of calls",
        samples={
            name: [1e6 * one for part in parts for one in part] for name, parts in taken.items()
        },
    )


def _one_processor(stage: Stage, rounds: int) -> dict[str, list[list[float]]]:
    """The same with caller and servers on one processor: the work alone.

    On two of them a call also waits for the other one to wake, on a virtual machine for longer than
    the floor takes; who is put where is the scheduler's choice, and not the same for both.
    """
    before = os.sched_getaffinity(0)
    with stage.worker() as worker:
        servers = (stage.server.pid, stage.floor.pid)
        _pin((worker.pid, *servers), {min(before)})
        taken: dict[str, list[list[float]]] = worker.do(
            "time", what="small", who=["bridge", "floor"], rounds=rounds, calls=200, warm=3
        )
        _pin(servers, before)
    return taken


def _pin(pids: Iterable[int], processors: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)


def _has_inline() -> bool:
    perl = shutil.which("perl")
    done = subprocess.run(
        [perl or "perl", "-MInline::Python", "-e1"], capture_output=True, check=False
    )
    return done.returncode == 0
