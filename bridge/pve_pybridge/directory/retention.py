# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Which backups to keep: the marking rules behind ``prune-backups``.

Each rule walks one guest's backups from new to old and keeps the newest of each period, for as many
periods as it says.  Shorter periods come first, and a later rule doesn't count periods that an
earlier one has kept something of.  Periods are those of local time.  Pure: no files, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(slots=True)
class Candidate:
    """One backup on its way to a mark; *mark* given beforehand (protected) is never changed."""

    volname: str
    ctime: int
    type: str
    vmid: int | None = None
    mark: str | None = None


def _local(ctime: int) -> datetime:
    return datetime.fromtimestamp(ctime)  # periods are those of the node's clock


_PERIODS: Final[Mapping[str, Callable[[int], Hashable]]] = {
    "keep-last": lambda ctime: ctime,
    "keep-hourly": lambda ctime: _local(ctime).timetuple()[:4],
    "keep-daily": lambda ctime: _local(ctime).timetuple()[:3],
    "keep-weekly": lambda ctime: _local(ctime).isocalendar()[:2],
    "keep-monthly": lambda ctime: _local(ctime).timetuple()[:2],
    "keep-yearly": lambda ctime: _local(ctime).year,
}


def mark_group(group: Sequence[Candidate], keep: Mapping[str, int]) -> None:
    """Set the mark of all backups of one guest that have none yet."""
    counts = {option: int(keep.get(option) or 0) for option in _PERIODS}
    if keep.get("keep-all") or not any(count > 0 for count in counts.values()):
        for candidate in group:
            candidate.mark = candidate.mark or "keep"
        return
    newest_first = sorted(group, key=lambda candidate: candidate.ctime, reverse=True)
    for option, period_of in _PERIODS.items():
        if counts[option]:
            _keep_newest(newest_first, counts[option], period_of)
    for candidate in newest_first:
        candidate.mark = candidate.mark or "remove"


def _keep_newest(
    newest_first: Sequence[Candidate], count: int, period_of: Callable[[int], Hashable]
) -> None:
    covered = {period_of(c.ctime) for c in newest_first if c.mark == "keep"}
    mine: set[Hashable] = set()
    for candidate in newest_first:
        period = period_of(candidate.ctime)
        if candidate.mark is not None or period in covered:
            continue
        if period in mine:
            candidate.mark = "remove"
        elif len(mine) >= count:
            return
        else:
            mine.add(period)
            candidate.mark = "keep"
