# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the start of a VM with two disks asks of its storage, all of it together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pve_pybridge.client import Client

from ..figures import Figure, Outcome, Series, excess, micro, typical
from ..stage import Stage


def measure(stage: Stage) -> Iterator[Outcome]:
    """Round trips by the server's own count; time against the plugin in Perl."""
    with stage.worker() as worker:
        before = calls(stage)
        worker.do("time", what="vm-start", who=["bridge"], rounds=1, calls=1, warm=0)
        trips = calls(stage) - before
        taken = worker.do(
            "time",
            what="vm-start",
            who=["bridge", "native"],
            rounds=10 if stage.short else 60,
            calls=30,
            warm=3,
        )
    ours, native = ([statistics.median(part) for part in taken[n]] for n in ("bridge", "native"))
    yield Figure("VM start with two disks", trips, "round trips", "", "<= 8")
    yield Figure(
        "VM start with two disks, time",
        1e3 * excess(ours, native),
        "ms above",
        f"native {micro(typical(taken['native']))}",
        "<= 0.5",
    )
    yield Series(
        "VM start",
        "time of all storage calls in ms",
        "share of starts",
        samples={name: [1e3 * one for part in taken[name] for one in part] for name in taken},
    )


def calls(stage: Stage) -> int:
    """Calls that the server has answered."""
    with Client("bench", stage.run / "bench.sock") as client:
        methods = client.call("_stats")["methods"]
    return sum(entry["calls"] for name, entry in methods.items() if name != "_stats")
