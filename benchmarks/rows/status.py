# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Fifty storages looked at as pvestatd does every ten seconds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ..figures import Figure, Outcome, Series, excess, milli, typical
from ..stage import STORAGES, Stage
from .vmstart import calls


def measure(stage: Stage) -> Iterator[Outcome]:
    """All of PVE::Storage::storage_info, against the same storages in Perl."""
    with stage.worker() as worker:
        before = calls(stage)
        worker.do("time", what="status", who=["bridge"], rounds=1, calls=1, warm=0)
        trips = calls(stage) - before
        taken = worker.do(
            "time",
            what="status",
            who=["bridge", "native"],
            rounds=10 if stage.short else 60,
            calls=5,
            warm=2,
        )
    ours, native = ([statistics.median(part) for part in taken[n]] for n in ("bridge", "native"))
    yield Figure(
        f"status of {STORAGES} storages, {trips} round trips",
        1e3 * excess(ours, native),
        "ms above",
        f"native {milli(typical(taken['native']))}",
        "<= 5",
    )
    yield Series(
        "status",
        "time of one look at all storages in ms",
        "share of looks",
        samples={name: [1e3 * one for part in taken[name] for one in part] for name in taken},
    )
