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
from typing import Any, Final

from .errors import Cancelled, DeadlineExceeded
from .storage import Flag
from .watch import Running

STUCK_SECONDS: Final = 9.0
"""A call older than this no longer speaks for new ones: the backend may be back."""
PATIENT_FROM: Final = 16
"""Once so many are stuck, each further attempt waits twice as long as the one before: a day of
hanging costs about thirty threads, and there is always a way back.
"""
FRESH_SECONDS: Final = 60.0
"""How long the last good answer may stand in for a late one."""


class Inflight:
    """The shared calls of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, list[Running]] = {}
        self._last: dict[Hashable, tuple[float, object]] = {}

    def share(self, key: Hashable, call: Running, work: Callable[[], object]) -> Any:
        """The result of *work*, run here or by whoever asked the same a moment ago."""
        while (other := self._board(key, call)) is not None:
            assert other.done is not None
            try:
                while not other.done.wait(0.25):
                    call.checkpoint()
            finally:
                with self._lock:
                    other.waiting -= 1
            if other.error is None:
                return other.value
            if not isinstance(other.error, Cancelled | DeadlineExceeded):
                raise other.error
            call.checkpoint()  # its caller went away or had less time than we have: ask anew
        try:
            call.value = value = work()
            return value
        except BaseException as err:
            call.error = err
            raise
        finally:
            self._land(key, call)

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
            return sum(map(len, self._running.values()))

    def _board(self, key: Hashable, call: Running) -> Running | None:
        """The running call to wait for; None if *call* itself shall run."""
        self._lock.acquire()  # ``with`` takes twice as long, in each call
        try:
            running = self._running.get(key)
            if running is None:
                self._running[key] = [call]
                return None
            newest = running[-1]
            patience = STUCK_SECONDS * 2.0 ** max(0, len(running) - PATIENT_FROM)
            if time.monotonic() - newest.started >= patience:
                running.append(call)
                return None
            newest.waiting += 1
            newest.done = newest.done or Flag()
            return newest
        finally:
            self._lock.release()

    def _land(self, key: Hashable, call: Running) -> None:
        self._lock.acquire()
        running = self._running[key]
        if len(running) == 1:
            del self._running[key]
        else:
            running.remove(call)
        self._lock.release()
        if call.done is not None:  # nobody can board any more
            call.done.set()
