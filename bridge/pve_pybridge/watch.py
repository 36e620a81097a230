# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Look after running calls: notice callers that hang up, late answers, and show life.

One thread for all calls of a server; it sleeps while nothing runs.  A plugin's thread can't be
interrupted, so when a call's time is up the watcher answers in its place and closes the connection.

Most calls are over before anybody could look.  A thread that woke for each of them would compete
with it for the interpreter (a small call took 6.7 times the floor, 6.1 without), so only those
that have run for SETTLE_SECONDS are looked at.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from .storage import Call

ALIVE_SECONDS: Final = 5.0
WATCH_MILLISECONDS: Final = 200
SETTLE_SECONDS: Final = 0.1


class Line(Protocol):
    """What the watcher needs of a connection."""

    draining: bool

    def fileno(self) -> int:
        """The socket, -1 once closed."""

    def show_life(self, number: int) -> None:
        """Send an alive frame."""

    def answer_for(self, running: Running) -> None:
        """Send the answer of a call whose time is up and close."""


@dataclass(slots=True, eq=False)
class Running:
    """A call in progress."""

    line: Line
    call: Call
    number: int
    storeid: str
    limit: float | None
    """Seconds after which the caller gets an answer, whatever the plugin does."""
    late: Callable[[], bytes]
    """Makes the frame for that case."""
    started: float = field(default_factory=time.monotonic)
    alive_at: float = field(default_factory=time.monotonic)
    gone: bool = False
    """The caller hung up, or sent something that ends its call."""
    answered: bool = False
    """The watcher has sent the answer it claimed."""
    _once: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """True for whoever comes first and thus has to answer."""
        return self._once.acquire(blocking=False)


class Watcher:
    """Keeps the list of running calls and the thread that looks at it."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._loop, name="watcher", daemon=True).start()

    def begin(self, running: Running) -> None:
        """A call starts."""
        self._running[id(running)] = running
        if not self._wake.is_set():
            self._wake.set()

    def end(self, running: Running) -> None:
        """A call is over."""
        self._running.pop(id(running), None)

    def calls(self) -> list[Running]:
        """What runs now."""
        return list(self._running.values())

    def _loop(self) -> None:
        while True:
            if not self._running:
                self._wake.clear()
                if not self._running:
                    self._wake.wait()
                time.sleep(SETTLE_SECONDS)
            settled = time.monotonic() - SETTLE_SECONDS
            if calls := [running for running in self.calls() if running.started <= settled]:
                self._look(calls)
            else:
                time.sleep(SETTLE_SECONDS)

    def _look(self, settled: list[Running]) -> None:
        calls = {running.line.fileno(): running for running in settled}
        calls.pop(-1, None)
        poll = select.poll()
        for fd, running in calls.items():
            if not running.gone:
                # while draining our own half is shut: only a full hang-up says anything then
                poll.register(fd, 0 if running.line.draining else select.POLLIN | select.POLLRDHUP)
        for fd, _ in poll.poll(WATCH_MILLISECONDS):
            # one call at a time: whatever arrives during it (EOF, a cancel frame) ends it
            calls[fd].gone = id(calls[fd]) in self._running
        now = time.monotonic()
        for running in calls.values():
            if running.gone and not running.call.wanted():
                running.call.cancelled.set()
            if running.limit is not None and now - running.started > running.limit:
                self._late(running)
            elif now - running.alive_at >= ALIVE_SECONDS:
                running.alive_at = now
                running.line.show_life(running.number)

    def _late(self, running: Running) -> None:
        """The caller has waited long enough; what the plugin still does is its own affair."""
        if running.claim():
            if not running.call.wanted():
                running.call.cancelled.set()
            self.end(running)
            try:
                running.line.answer_for(running)
            finally:
                running.answered = True
