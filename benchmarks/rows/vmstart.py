# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the start of a VM with two disks asks of its storage, all of it together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from ..figures import Figure, Outcome, Series, excess, micro, typical
from ..stage import Stage, awake


def measure(stage: Stage) -> Iterator[Outcome]:
    """Round trips and time, against the plugin in Perl."""
    yield Figure("VM start with two disks", trips(stage, "vm-start"), "round trips", "", "<= 8")
    yield from against_native(stage, "VM start", "vm-start", calls=30, warm=3, goal="<= 0.5")


def trips(stage: Stage, what: str) -> int:
    """Messages that the work sends to a server."""
    with stage.worker() as worker:
        return int(worker.do("trips", what=what, who="bridge")["trips"])


def against_native(
    stage: Stage, name: str, what: str, *, calls: int, warm: int, goal: str
) -> Iterator[Outcome]:
    """How many ms the bridge's take more, where the scheduler likes and on one processor.

    Where processors halt, the short form's few rounds say little: no goal there.
    """
    rounds = 10 if stage.short else 60
    who = ["bridge", "native"]
    for together, without_halts, words in (
        (False, False, "time"),
        (False, True, "time, processors awake"),
        (True, False, "time on one processor"),
    ):
        with ExitStack() as stack:
            if without_halts and not stack.enter_context(awake()):
                continue
            worker = stack.enter_context(stage.worker(one_processor=together))
            taken = worker.do("time", what=what, who=who, rounds=rounds, calls=calls, warm=warm)
        ours, native = ([statistics.median(part) for part in taken[one]] for one in who)
        yield Figure(
            f"{name}, {words}",
            1e3 * excess(ours, native),
            "ms above",
            f"native {micro(typical(taken['native']))}",
            goal if words != "time" or not stage.short else "",
        )
        if words == "time":
            yield Series(
                name,
                "time of all storage calls in ms",
                "share of times",
                samples={
                    one: [1e3 * each for part in parts for each in part]
                    for one, parts in taken.items()
                },
            )
