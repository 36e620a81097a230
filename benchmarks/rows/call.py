# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One small call through the generated class, warm: ``activate_volume`` with hints."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

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
    ours = taken["bridge"]
    yield from _against_floor("small call", taken, gated=not stage.short)
    with stage.worker(one_processor=True) as worker:
        alone = worker.do("time", what="small", who=who[:2], rounds=rounds, calls=200, warm=3)
    yield from _against_floor("small call on one processor", alone)
    spawned = typical(taken["spawn"])
    for name, parts in (("small call", taken), ("small call on one processor", alone)):
        yield Figure(
            f"{name}, times faster than spawn",
            spawned / typical(parts["bridge"]),
            "x",
            f"spawn {milli(spawned)}",
            "" if stage.short else ">= 500",  # six processes are too few to judge by
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


def _against_floor(
    name: str, taken: dict[str, list[list[float]]], *, gated: bool = True
) -> Iterator[Figure]:
    """Where the scheduler chooses, the short form's few calls say little: no goal there."""
    ours, floor = taken["bridge"], taken["floor"]
    reference = f"floor {micro(typical(floor))}"
    yield Figure(f"{name}, median", ratio(ours, floor), "x", reference, "<= 1.5" if gated else "")
    reference = f"floor {micro(typical(floor, p99))}"
    yield Figure(f"{name}, p99", ratio(ours, floor, p99), "x", reference, "<= 2" if gated else "")


def _has_inline() -> bool:
    perl = shutil.which("perl")
    done = subprocess.run(
        [perl or "perl", "-MInline::Python", "-e1"], capture_output=True, check=False
    )
    return done.returncode == 0
