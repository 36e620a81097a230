# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the server did: calls, failures and times per method, for ``pve-pybridge stats``.

Times are kept as counts in buckets a quarter of an octave wide, so percentiles are exact to 19 %
and the memory is fixed.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Final

_PER_OCTAVE: Final = 4
_BUCKETS: Final = 34 * _PER_OCTAVE


class _Method:
    __slots__ = ("buckets", "calls", "failed", "slowest", "total")

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0
        self.total = 0.0
        self.slowest = 0.0
        self.buckets = [0] * _BUCKETS


class Metrics:
    """Counters of one server since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._methods: dict[str, _Method] = {}
        self._since = time.time()
        self._asked: dict[str, float] = {}
        self._answered: dict[str, float] = {}

    def count(self, method: str, seconds: float, *, failed: bool) -> None:
        """One finished call."""
        bucket = int(math.log2(max(seconds * 1e6, 1.0)) * _PER_OCTAVE)
        with self._lock:
            entry = self._methods.get(method)
            if entry is None:
                entry = self._methods[method] = _Method()
            entry.calls += 1
            entry.failed += failed
            entry.total += seconds
            entry.slowest = max(entry.slowest, seconds)
            entry.buckets[min(bucket, _BUCKETS - 1)] += 1

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
    return {
        "calls": entry.calls,
        "failed": entry.failed,
        "mean": round(entry.total / entry.calls * 1000, 3),
        "p50": _percentile(entry, 0.50),
        "p99": _percentile(entry, 0.99),
        "max": round(entry.slowest * 1000, 3),
    }


def _percentile(entry: _Method, share: float) -> float:
    """Upper edge of the bucket in which the share is reached, in milliseconds."""
    wanted = math.ceil(entry.calls * share)
    seen = 0
    for index, count in enumerate(entry.buckets):
        seen += count
        if seen >= wanted:
            edge = 2 ** ((index + 1) / _PER_OCTAVE) / 1000
            return round(min(edge, entry.slowest * 1000), 3)
    return round(entry.slowest * 1000, 3)
