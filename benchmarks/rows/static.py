# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Answers that never cross the socket, against PVE's own directory storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..figures import Figure, Outcome, Series, micro, ratio, typical
from ..stage import Stage

METHODS: Final = (
    "parse_volname",
    "volume_has_feature",
    "get_formats",
    "volume_export_formats",
    "volume_qemu_snapshot_method",
    "volume_snapshot_needs_fsfreeze",
    "storage_can_replicate",
)


def measure(stage: Stage) -> Iterator[Outcome]:
    """Each method by itself, and names that were never seen before."""
    rounds = 5 if stage.short else 30
    batches = {"calls": 5 if stage.short else 20, "batch": 500, "warm": 1, "rounds": rounds}
    medians: dict[str, dict[str, float]] = {"bridge": {}, "parser": {}}
    with stage.worker() as worker:
        for method in (*METHODS, "new-names"):
            what = method if method == "new-names" else f"static-{method}"
            who = ["bridge", "parser"]
            taken = worker.do("time", what=what, who=who, **batches)
            name = "parse_volname, a new name each time" if method == "new-names" else method
            parser = f"PVE's directory parser {micro(typical(taken['parser']))}"
            yield Figure(name, 1e6 * typical(taken["bridge"]), "µs", parser, "<= 3")
            yield Figure(
                f"{name}, relative", ratio(taken["bridge"], taken["parser"]), "x", parser, "<= 2"
            )
            for label, parts in taken.items():
                medians[label][method] = 1e6 * typical(parts)
    yield Series("static answers", "µs", "", bars=medians)
