# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One small call through the generated class, warm: ``activate_volume`` with hints."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

from ..figures import Figure, Outcome, Series, micro, milli, p99, ratio, typical
from ..stage import Stage, awake


def measure(stage: Stage) -> Iterator[Outcome]:
    """Bridge against floor, spawn and the other ways to reach code."""
    rounds = 15 if stage.short else 80
    who = ["bridge", "floor", "native", *(["bare"] if stage.has_echo else [])]
    taken = _in_turn(stage, who, rounds)
    with stage.worker() as worker:
        taken |= worker.do(
            "time", what="small", who=["spawn"], rounds=3 if stage.short else 10, calls=2
        )
    if _has_inline():
        with stage.worker() as worker:  # of its own: Python in its process changes it
            taken |= worker.do("time", what="small", who=["inline"], rounds=rounds, calls=200)
    ours = taken["bridge"]
    yield from _against_floor("small call", taken, gated=not stage.short)
    with awake() as without_halts:
        if without_halts:
            among = _in_turn(stage, who[:2], rounds)
            yield from _against_floor("small call, processors awake", among)
    alone = _in_turn(stage, who[:2], rounds, one_processor=True)
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


def _in_turn(
    stage: Stage, who: list[str], rounds: int, *, one_processor: bool = False
) -> dict[str, list[list[float]]]:
    """Rounds of each contender by turns, each with a process and connections of its own.

    Callers that shared a process would share its luck: a server that once ran on the caller's
    processor stays there, the others stay on the other one, which must wake with each message.
    """
    taken: dict[str, list[list[float]]] = {name: [] for name in who}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(stage.worker(one_processor=one_processor)) for name in who
        }
        for number in range(rounds):
            for name in who if number % 2 else reversed(who):
                job = {"what": "small", "who": [name], "rounds": 1, "calls": 200}
                taken[name] += workers[name].do("time", **job)[name]
    return taken


def _against_floor(
    name: str, taken: dict[str, list[list[float]]], *, gated: bool = True
) -> Iterator[Figure]:
    """Where processors halt, the short form's few calls say little: no goal there."""
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
