# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Many processes calling at once: what the server does in a second, and how long one waits."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..figures import Figure, Outcome, Series, micro, p99, shown
from ..stage import Stage, Worker

WIDTHS: Final = (1, 8, 64, 256)


def measure(stage: Stage) -> Iterator[Outcome]:
    """Bridge and floor in turn at each width.

    Short runs at the same width gave 0.19 and 0.59 of the floor: too little to judge by.
    """
    rounds, seconds = (1, 0.4) if stage.short else (5, 1.0)
    rate: dict[str, list[tuple[float, float]]] = {"bridge": [], "floor": []}
    tail: dict[str, list[tuple[float, float]]] = {"bridge": [], "floor": []}
    with stage.worker() as worker:
        for width in WIDTHS:
            taken: dict[str, list[list[float]]] = {"bridge": [], "floor": []}
            for number in range(rounds):
                for who in ("bridge", "floor") if number % 2 else ("floor", "bridge"):
                    taken[who].append(_crowd(stage, worker, who, width, seconds))
            counts = {who: [len(one) for one in parts] for who, parts in taken.items()}
            share = statistics.median(
                a / b for a, b in zip(counts["bridge"], counts["floor"], strict=True)
            )
            for who, parts in taken.items():
                rate[who].append((width, statistics.median(counts[who]) / seconds))
                tail[who].append((width, statistics.median(map(p99, parts))))
            yield Figure(
                f"throughput of {width} processes",
                share,
                "x",
                f"floor {shown(rate['floor'][-1][1])} calls/s",
                "" if stage.short else ">= 0.8",
            )
            growth = {who: points[-1][1] / points[0][1] for who, points in tail.items()}
            if width > 1:
                yield Figure(
                    f"p99 of {width} processes, growth since 1",
                    growth["bridge"] / growth["floor"],
                    "x",
                    f"floor's growth, to {micro(tail['floor'][-1][1])}",
                    "" if stage.short else "<= 1",
                )
    yield Series("throughput", "processes", "calls/s", lines=rate)
    yield Series("p99", "processes", "seconds", lines=tail)


def _crowd(stage: Stage, worker: Worker, who: str, width: int, seconds: float) -> list[float]:
    """The seconds each call of each process took."""
    out = stage.base / "crowd"
    worker.do("crowd", what="small", who=who, processes=width, seconds=seconds, out=str(out))
    taken = array("f")
    for file in [Path(f"{out}.{number + 1}") for number in range(width)]:
        taken.frombytes(file.read_bytes())
        file.unlink()
    return list(taken)
