# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Fifty storages looked at as pvestatd does every ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

from ..figures import Figure, Outcome, Series, milli, typical
from ..stage import STORAGES, Stage
from .vmstart import against_native, in_ms


def measure(stage: Stage) -> Iterator[Outcome]:
    """All of PVE::Storage::storage_info, against the same storages in Perl."""
    trips, taken, above = against_native(stage, "status", calls=5, warm=2)
    yield Figure(
        f"status of {STORAGES} storages, {trips} round trips",
        above,
        "ms above",
        f"native {milli(typical(taken['native']))}",
        "<= 5",
    )
    yield Series(
        "status",
        "time of one look at all storages in ms",
        "share of looks",
        samples=in_ms(taken),
    )
