# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One running call for identical queries, and the last good answer of each (D7, D10).

PVE asks every storage every ten seconds, and whenever somebody looks at a status.  A backend that
hangs must not collect a thread for each of those questions: the first one asks, the others wait
for its answer, each no longer than its own limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from .errors import Cancelled, DeadlineExceeded
from .storage import Call, Flag

STUCK_SECONDS: Final = 9.0
"""A call older than this no longer speaks for new ones: the backend may be back."""
PATIENT_FROM: Final = 16
"""Once so many are stuck, each further attempt waits twice as long as the one before: a day of
hanging costs about thirty threads, and there is always a way back.
"""
FRESH_SECONDS: Final = 60.0
"""How long the last good answer may stand in for a late one."""


class Flight:
    """A running call that others wait for."""

    __slots__ = ("call", "done", "error", "started", "value")

    def __init__(self, call: Call):
        self.call = call
        self.started = time.monotonic()
        self.done = Flag()
        self.value: object = None
        self.error: BaseException | None = None


class Inflight:
    """The shared calls of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, list[Flight]] = {}
        self._last: dict[Hashable, tuple[float, object]] = {}

    def share(self, key: Hashable, call: Call, work: Callable[[], object]) -> object:
        """The result of *work*, run here or by whoever asked the same a moment ago."""
        while True:
            flight = self._board(key, call)
            if flight.call is call:
                return self._lead(key, flight, work)
            try:
                while not flight.done.wait(0.25):
                    call.checkpoint()
            finally:
                with self._lock:
                    flight.call.waiting -= 1
            if flight.error is None:
                return flight.value
            if not isinstance(flight.error, Cancelled | DeadlineExceeded):
                raise flight.error
            call.checkpoint()  # its caller went away or had less time than we have: ask anew

    def remember(self, key: Hashable, value: object) -> None:
        """Keep a good answer."""
        self._last[key] = (time.monotonic(), value)

    def last_known(self, key: Hashable) -> object:
        """The last good answer, None when there is none younger than a minute."""
        when, value = self._last.get(key, (0.0, None))
        return value if time.monotonic() - when < FRESH_SECONDS else None

    def stuck(self) -> int:
        """How many shared calls are running."""
        with self._lock:
            return sum(map(len, self._flights.values()))

    def _board(self, key: Hashable, call: Call) -> Flight:
        """The flight that *call* joins, or a new one of its own."""
        flight = Flight(call)
        self._lock.acquire()  # ``with`` takes twice as long, in each call
        try:
            flights = self._flights.setdefault(key, [])
            if flights:
                newest = flights[-1]
                patience = STUCK_SECONDS * 2.0 ** max(0, len(flights) - PATIENT_FROM)
                if flight.started - newest.started < patience:
                    newest.call.waiting += 1
                    return newest
            flights.append(flight)
            return flight
        finally:
            self._lock.release()

    def _lead(self, key: Hashable, flight: Flight, work: Callable[[], object]) -> object:
        try:
            flight.value = work()
            return flight.value
        except BaseException as err:
            flight.error = err
            raise
        finally:
            self._lock.acquire()
            flights = self._flights[key]
            flights.remove(flight)
            if not flights:
                del self._flights[key]
            self._lock.release()
            flight.done.set()
