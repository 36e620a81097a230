# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the start of a VM with two disks asks of its storage, all of it together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..figures import Figure, Outcome, Series, excess, micro, typical
from ..stage import Stage

Parts = list[list[float]]


def measure(stage: Stage) -> Iterator[Outcome]:
    """Round trips and time, against the plugin in Perl."""
    trips, taken, above = against_native(stage, "vm-start", calls=30, warm=3)
    yield Figure("VM start with two disks", trips, "round trips", "", "<= 8")
    yield Figure(
        "VM start with two disks, time",
        above,
        "ms above",
        f"native {micro(typical(taken['native']))}",
        "<= 0.5",
    )
    yield Series(
        "VM start",
        "time of all storage calls in ms",
        "share of starts",
        samples=in_ms(taken),
    )


def against_native(
    stage: Stage, what: str, *, calls: int, warm: int
) -> tuple[int, dict[str, Parts], float]:
    """Round trips of one, the seconds of many, and how many ms the bridge's take more."""
    with stage.worker() as worker:
        trips = worker.do("trips", what=what, who="bridge")["trips"]
        rounds = 10 if stage.short else 60
        who = ["bridge", "native"]
        taken = worker.do("time", what=what, who=who, rounds=rounds, calls=calls, warm=warm)
    ours, native = ([statistics.median(part) for part in taken[name]] for name in who)
    return trips, taken, 1e3 * excess(ours, native)


def in_ms(taken: dict[str, Parts]) -> dict[str, list[float]]:
    """All samples, in milliseconds."""
    return {name: [1e3 * one for part in parts for one in part] for name, parts in taken.items()}
