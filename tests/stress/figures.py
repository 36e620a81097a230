# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What an experiment measured, against its goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    what: str
    tried: int
    failed: int
    worst: float | None
    """Seconds, or what *unit* says; None where there is nothing to measure."""
    goal: str
    met: bool
    unit: str = "s"
    details: tuple[str, ...] = ()
    """Some of the failures, for whoever has to look into them."""

    def __str__(self) -> str:
        worst = "-" if self.worst is None else f"{self.worst:.3f} {self.unit}"
        return (
            f"{self.what}: tried {self.tried}, failed {self.failed}, worst {worst}, "
            f"goal: {self.goal}: {'met' if self.met else 'MISSED'}"
        )


def within(what: str, times: Iterable[float], limit: float, tried: int | None = None) -> Figure:
    """Each time must be at most *limit* seconds."""
    known = list(times)
    late = [time for time in known if time > limit]
    worst = max(known, default=0.0)
    count = len(known) if tried is None else tried
    return Figure(what, count, len(late), worst, f"each within {limit:g} s", not late)


def none_failed(
    what: str, tried: int, failures: Iterable[str], worst: float | None = None
) -> Figure:
    """Nothing may have gone wrong, and something must have been tried."""
    found = tuple(failures)
    met = not found and tried > 0
    return Figure(what, tried, len(found), worst, "0 failed", met, details=found[:5])


def at_most(what: str, tried: int, value: float, limit: float, unit: str) -> Figure:
    """A quantity that must not exceed its limit."""
    met = value <= limit
    return Figure(what, tried, int(not met), value, f"at most {limit:g} {unit}", met, unit)
