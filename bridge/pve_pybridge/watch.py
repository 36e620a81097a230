# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Look after running calls: notice callers that hang up, late answers, and show life.

One thread for all calls of a server; it sleeps while nobody is served.  A plugin's thread can't be
interrupted, so when a call's time is up the watcher answers in its place and closes the connection.
It also sees to it that a call that takes long keeps no other waiting, see ``crew``.

Most calls are over before anybody could look.  A thread that woke for each of them would compete
with it for the interpreter (a small call took 6.7 times the floor, 6.1 without), so only those
that have run for SETTLE_SECONDS are looked at.
"""

from __future__ import annotations

import select
import threading
import time
from typing import Final, Protocol

from .crew import Crew
from .model import Host
from .storage import Call, Flag

ALIVE_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 0.1
WATCH_MILLISECONDS: Final = 200
TICK_MILLISECONDS: Final = 10
"""Between looks at who is served, until nobody has come for SETTLE_SECONDS."""


class Line(Protocol):
    """What a running call and the watcher need of its connection."""

    draining: bool
    takes_parts: bool

    def fileno(self) -> int:
        """The socket, -1 once closed."""

    def tell(self, running: Running, level: str, line: str) -> None:
        """Send a log line."""

    def send_part(self, running: Running, rows: list[dict[str, object]]) -> None:
        """Send the first rows of an answer."""

    def show_life(self, number: int) -> None:
        """Send an alive frame."""

    def answer_for(self, running: Running) -> None:
        """Send the answer of a call whose time is up and close."""


class Running(Call):
    """A call in progress."""

    line: Line
    number: int
    storeid: str
    limit: float | None
    """Seconds after which the caller gets an answer, whatever the plugin does."""
    started: float
    alive_at: float = 0.0
    asked: object = None
    """``operation`` as it came: an address in the caller, or text."""
    before: bytes = b""
    """Answers of calls that came together with this one, not yet sent."""
    gone: bool = False
    """The caller hung up, or sent something that ends its call."""
    answered: bool = False
    """The watcher has sent the answer it claimed."""
    done: Flag | None = None
    """Set when a shared call is over; made by the first one that waits for it."""
    value: object = None
    error: BaseException | None = None
    """What a shared call came to."""

    def __init__(
        self,
        line: Line,
        number: int,
        method: str,
        storeid: str,
        host: Host,
        limit: float | None,
    ):
        # not by Call's own, which would take as long again
        self.method = method
        self.host = host
        self.line = line
        self.number = number
        self.storeid = storeid
        self.limit = limit
        self.started = started = time.monotonic()
        if limit is not None:
            self.deadline = started + limit

    @property
    def operation(self) -> str | None:  # type: ignore[override]  # text only for those who ask
        """Same for all calls of one PVE operation, None when PVE gave none."""
        if self.asked is None or isinstance(self.asked, str):
            return self.asked
        return f"{self.host.pid}-{self.asked}"

    @property
    def in_parts(self) -> bool:  # type: ignore[override]  # what the connection says is settled
        """Whether the caller takes a long list in parts."""
        return self.line.takes_parts

    def hurry(self, ends: float) -> None:
        """The caller's own alarm goes off at *ends*; the sooner of both limits counts."""
        if self.deadline is None or ends < self.deadline:
            self.deadline = ends

    def emit(self, level: str, line: str) -> None:
        """To the caller's task log."""
        self.line.tell(self, level, line)

    def part(self, rows: list[dict[str, object]]) -> None:
        """To the caller, while the others are made."""
        self.line.send_part(self, rows)


class Watcher:
    """Keeps the list of running calls and the thread that looks at it."""

    def __init__(self, crew: Crew) -> None:
        self.running: dict[Running, Running] = {}
        """The calls in progress.  Whoever takes one out, ``pop(call, None)``, has to answer it."""
        self._crew = crew
        self._nobody = select.poll()
        self._nobody.register(crew.bell, select.POLLIN)

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._loop, name="watcher", daemon=True).start()

    def calls(self) -> list[Running]:
        """What runs now."""
        return list(self.running.values())

    def _loop(self) -> None:
        served = time.monotonic()
        while True:
            now = time.monotonic()
            if self._crew.look():
                served = now
            settled = now - SETTLE_SECONDS
            calls = [running for running in self.calls() if running.started <= settled]
            if now - served < SETTLE_SECONDS or not self._crew.unwatch():
                pause: int | None = TICK_MILLISECONDS
            else:
                pause = WATCH_MILLISECONDS if self.running else None
            if self._look(calls, pause):
                served = time.monotonic()

    def _look(self, settled: list[Running], pause: int | None) -> bool:
        """See to calls that have run for a while; whether one began while nobody watched."""
        if not settled:  # nearly always, and whoever is served waits for us
            rung = bool(self._nobody.poll(pause))
            self._crew.watch(rung)
            return rung
        calls = {running.line.fileno(): running for running in settled}
        calls.pop(-1, None)
        poll = select.poll()
        poll.register(self._crew.bell, select.POLLIN)
        for fd, running in calls.items():
            if not running.gone:
                # while draining our own half is shut: only a full hang-up says anything then
                poll.register(fd, 0 if running.line.draining else select.POLLIN | select.POLLRDHUP)
        ready = {fd for fd, _ in poll.poll(pause)}
        rung = self._crew.bell in ready
        self._crew.watch(rung)
        for fd in ready & calls.keys():
            # one call at a time: whatever arrives during it (EOF, a cancel frame) ends it
            calls[fd].gone = calls[fd] in self.running
        now = time.monotonic()
        for running in calls.values():
            if running.gone and not running.waiting:
                running.cancelled.set()
            if running.limit is not None and now - running.started > running.limit:
                self._late(running)
            elif now - max(running.started, running.alive_at) >= ALIVE_SECONDS:
                running.alive_at = now
                running.line.show_life(running.number)
        return rung

    def _late(self, running: Running) -> None:
        """The caller has waited long enough; what the plugin still does is its own affair."""
        if self.running.pop(running, None):
            if not running.waiting:
                running.cancelled.set()
            try:
                running.line.answer_for(running)
            finally:
                running.answered = True
