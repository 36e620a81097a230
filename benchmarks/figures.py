# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Samples become figures: medians of ratios, against goals; one line each in table and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from pve_pybridge.cli.show import columns

Rounds = Sequence[Sequence[float]]
"""Samples of one contender: a list for each round."""

MARGIN: Final = 3.0
"""The short form fails only this far beyond a goal, so that a busy machine can't make it flap."""
COMPARABLE: Final = frozenset({"x", "%", "% above", "round trips", "a second"})
"""Units of ratios and counts; times and sizes by themselves are the machine's."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity, what it is held against and what it should be."""

    name: str
    value: float
    unit: str
    reference: str
    """What the value is relative to, with its own figure."""
    goal: str
    """``<= 1.5``, ``>= 0.8``; empty: nothing is asked, the figure is there to compare."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return self._within(1.0)

    @property
    def hopeless(self) -> bool:
        """Beyond even the wide margin, in what machines can be compared by."""
        return self.unit in COMPARABLE and self._within(MARGIN) is False

    def _within(self, margin: float) -> bool | None:
        if not self.goal:
            return None
        relation, bound = self.goal.split()
        limit = float(bound)
        return self.value <= limit * margin if relation == "<=" else self.value >= limit / margin

    def entry(self) -> dict[str, object]:
        """For the JSON file."""
        return {**asdict(self), "value": round(self.value, 4), "met": self.met}

    def columns(self) -> tuple[str, ...]:
        """For the table."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        value = f"{shown(self.value)} {self.unit}".strip()
        return (self.name, value, self.reference, self.goal, verdict)


@dataclass(frozen=True, slots=True)
class Series:
    """What a plot shows, by label: lines of points, distributions, or bars."""

    name: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Label → points; drawn over logarithmic axes."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Label → samples; drawn as the share of them that is at most so long."""
    bars: dict[str, dict[str, float]] = field(default_factory=dict)
    """Label → place on the axis → value."""


Outcome = Figure | Series


def ratio(
    ours: Rounds, theirs: Rounds, of: Callable[[Sequence[float]], float] = statistics.median
) -> float:
    """The median of the ratios of each round: what drifts hits both sides of one round."""
    return statistics.median(of(a) / of(b) for a, b in zip(ours, theirs, strict=True))


def excess(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median of the differences, pair by pair."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def p99(samples: Sequence[float]) -> float:
    """The sample that 99 of 100 don't exceed."""
    return sorted(samples)[max(0, math.ceil(len(samples) * 0.99) - 1)]


def typical(rounds: Rounds, of: Callable[[Sequence[float]], float] = statistics.median) -> float:
    """The median over the rounds."""
    return statistics.median(of(one) for one in rounds)


def shown(value: float) -> str:
    """Three digits that matter."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def micro(seconds: float) -> str:
    """A duration in microseconds."""
    return f"{shown(seconds * 1e6)} µs"


def milli(seconds: float) -> str:
    """A duration in milliseconds."""
    return f"{shown(seconds * 1e3)} ms"


def table(figures: Sequence[Figure]) -> str:
    """All figures, aligned."""
    lines = [("what", "value", "reference", "goal", ""), *(one.columns() for one in figures)]
    return columns(lines)
