# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Fifty storages looked at as pvestatd does every ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

from ..figures import Figure, Outcome
from ..stage import STORAGES, Stage
from .vmstart import against_native, trips


def measure(stage: Stage) -> Iterator[Outcome]:
    """All of PVE::Storage::storage_info, against the same storages in Perl."""
    name = f"status of {STORAGES} storages"
    yield Figure(name, trips(stage, "status"), "round trips", "", "")
    yield from against_native(stage, name, "status", calls=5, warm=2, goal="<= 5")
