# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the server did: calls, failures and times per method, for ``pve-pybridge stats``.

Times are kept as counts in buckets a quarter of an octave wide, so percentiles are exact to 19 %
and the memory is fixed.
"""

from __future__ import annotations

import math
import operator
import threading
import time
from collections import Counter
from itertools import repeat
from typing import Final

_PER_OCTAVE: Final = 4
_AT_ONCE: Final = 1000


class _Method:
    __slots__ = ("buckets", "calls", "failed", "new", "slowest", "total")

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0
        self.total = 0.0
        self.slowest = 0.0
        self.buckets = Counter[int]()
        self.new: list[float] = []

    def sort(self) -> None:
        """Count what is new, all at once: that takes a third of what one by one takes."""
        seconds = self.new[:]
        del self.new[: len(seconds)]  # others may have come meanwhile
        self.calls += len(seconds)
        self.total += sum(seconds)
        self.slowest = max(self.slowest, *seconds, 0.0)
        microseconds = map(max, map(operator.mul, seconds, repeat(1e6)), repeat(1.0))
        logarithms = map(operator.mul, map(math.log2, microseconds), repeat(_PER_OCTAVE))
        self.buckets.update(map(int, logarithms))


class Metrics:
    """Counters of one server since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._methods: dict[str, _Method] = {}
        self._since = time.time()
        self._asked: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    def count(self, method: str, seconds: float, failed: bool) -> None:
        """One finished call."""
        entry = self._methods.get(method) or self._methods.setdefault(method, _Method())
        entry.new.append(seconds)
        if failed or len(entry.new) > _AT_ONCE:
            with self._lock:
                entry.failed += failed
                entry.sort()

    def status(self, storeid: str, *, good: bool) -> None:
        """Somebody asks for the status of a storage; later: it has been answered."""
        (self._answered if good else self._asked)[storeid] = time.time()

    def snapshot(self) -> dict[str, object]:
        """Everything as plain data; times in milliseconds."""
        with self._lock:
            methods = {name: _summary(entry) for name, entry in sorted(self._methods.items())}
        status = {
            storeid: {"asked": asked, "answered": self._answered.get(storeid)}
            for storeid, asked in sorted(self._asked.copy().items())
        }
        return {"since": int(self._since), "methods": methods, "status": status}


def _summary(entry: _Method) -> dict[str, object]:
    entry.sort()
    return {
        "calls": entry.calls,
        "failed": entry.failed,
        "mean": round(entry.total / max(entry.calls, 1) * 1000, 3),
        "p50": _percentile(entry, 0.50),
        "p99": _percentile(entry, 0.99),
        "max": round(entry.slowest * 1000, 3),
    }


def _percentile(entry: _Method, share: float) -> float:
    """Upper edge of the bucket in which the share is reached, in milliseconds."""
    wanted = math.ceil(entry.calls * share)
    seen = 0
    for index, count in sorted(entry.buckets.items()):
        seen += count
        if seen >= wanted:
            edge = 2 ** ((index + 1) / _PER_OCTAVE) / 1000
            return round(min(edge, entry.slowest * 1000), 3)
    return round(entry.slowest * 1000, 3)
