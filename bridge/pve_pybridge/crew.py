# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The threads that serve callers (D7): as many as there are calls that take long, and one more.

Plugins block, so a call that takes long has a thread to itself.  Most calls take less time than it
takes to wake a thread, and threads that all want the interpreter keep each other from work.  So one
thread leads: it waits for whoever calls next and serves it.  Before a call that isn't known to be
quick, and when one takes longer than was thought, another thread takes the lead; the thread of a
long one stays with its caller for as long as there are more of this kind.  So does that of a caller
who calls alone, until others call, too.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger(__name__)

QUICK_SECONDS: Final = 0.001
"""A call that takes longer makes nobody else wait; to wake a thread for it takes up to 0.1 ms."""
_PATIENCE_MS: Final = 50
"""So long a thread waits for the next call of a guest whose calls take long."""
_ALONE: Final = 16
"""After so many turns of the same guest it has a thread to itself, until somebody else calls."""
_AT_ONCE: Final = 16
"""Callers that the leader serves before it asks who else has come."""
SPARE: Final = 4
"""Threads that stay for what comes next, once their call is over."""


class Guest(Protocol):
    """Who is served: a connection."""

    def fileno(self) -> int:
        """The socket."""

    def serve(self) -> bool:
        """Take what has come and answer it; False when nothing more will come.  Never raises."""

    def close(self) -> None:
        """Hang up."""


class Crew:
    """Serves guests, one quick one after the other, the others beside them."""

    def __init__(self) -> None:
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable after ``ring``."""
        self.watched = False
        """Whether somebody looks, who otherwise wants to hear the bell when something begins."""
        self._epoll = select.epoll()
        self._guests: dict[int, Guest] = {}
        self._turn: list[Guest] = []
        """Whom the leader serves, if anybody.  Who takes it out decides who leads from then on."""
        self._event: tuple[int, int] | None = None
        """What brought the latest turn, a new object each time."""
        self._seen: tuple[int, int] | None = None
        self._spare: list[_Thread] = []
        self._changing = threading.Lock()
        """Held while another thread takes the lead."""

    def start(self) -> None:
        """Have a thread lead, and another one wait; RuntimeError when there is none to be had."""
        self._new_thread().begin(self._lead)
        self._spare.append(self._new_thread())

    def add(self, guest: Guest) -> None:
        """Serve *guest* whenever it sends something, until it says that this was all.

        OSError when the kernel has no room for one more.
        """
        self._guests[guest.fileno()] = guest  # first: it may be the leader's next one
        self._epoll.register(guest, select.EPOLLIN)

    def aside(self, guest: Guest) -> None:
        """Serving *guest* may take long from here: others don't wait for it."""
        turn = self._turn
        if guest in turn:
            self._replace(turn)

    def look(self) -> bool:
        """Replace a leader who serves the same guest as last time; whether anybody was served."""
        turn, event = self._turn, self._event
        served, self._seen = event is not self._seen, event
        if turn and not served:
            self._replace(turn)
        return served

    def unwatch(self) -> bool:
        """Want the bell from now on; False when the leader serves somebody right now."""
        self.watched = False  # first: either the leader sees it, or we the guest
        self.watched = bool(self._turn)
        return not self.watched

    def watch(self, rung: bool) -> None:
        """Whoever looks is awake again."""
        self.watched = True
        if rung:
            os.eventfd_read(self.bell)

    def ring(self) -> None:
        """Wake who looks."""
        os.eventfd_write(self.bell, 1)

    # --- the threads ---------------------------------------------------------------------------

    def _lead(self) -> None:
        turn, guests, poll = self._turn, self._guests, self._epoll.poll
        latest, again, alone = None, 0, False
        while True:
            for event in poll(-1, _AT_ONCE):
                guest = guests[event[0]]
                turn.append(guest)
                self._event = event
                if guest is not latest:
                    latest, again = guest, 0
                elif again < _ALONE:
                    again += 1
                else:  # needs nobody who waits for all: that takes a tenth of a quick call
                    again, alone = 0, True
                    self._replace(turn)
                if not self.watched:
                    self.ring()
                stays = guest.serve()
                try:
                    turn.pop()
                except IndexError:  # another thread leads
                    with self._changing:  # whoever leads has forgotten the guest by now
                        pass
                    go_on = self._while_alone if alone else self._while_long
                    self._come_back(guest, go_on(guest, stays))
                    return
                if not stays:
                    self._forget(guest)
                    guest.close()

    def _while_alone(self, guest: Guest, stays: bool) -> bool:
        """Go on with a guest until somebody else calls."""
        event = self._event
        while stays and self._event is event:
            stays = guest.serve()
        return stays

    def _while_long(self, guest: Guest, stays: bool) -> bool:
        """Go on with a guest as long as its calls take long."""
        waiting, long = select.poll(), True
        waiting.register(guest, select.POLLIN)
        while stays and long and waiting.poll(_PATIENCE_MS):
            began = time.monotonic()
            stays = guest.serve()
            long = time.monotonic() - began >= QUICK_SECONDS
        return stays

    def _come_back(self, guest: Guest, stays: bool) -> None:
        try:
            if stays:
                self.add(guest)
        except OSError as err:
            logger.error("can't wait for a caller: %s", err)
            stays = False
        if not stays:
            guest.close()

    def _forget(self, guest: Guest) -> None:
        self._epoll.unregister(guest)
        del self._guests[guest.fileno()]

    def _replace(self, turn: list[Guest]) -> None:
        """Let another thread lead, unless that turn is over."""
        with self._changing:
            try:
                thread = self._spare.pop() if self._spare else self._new_thread()
            except RuntimeError as err:
                logger.error("%s: callers wait for each other", err)
                return
            try:
                guest = turn.pop()
            except IndexError:
                self._spare.append(thread)
                return
            self._forget(guest)
            self._turn = []
            thread.begin(self._lead)

    def _new_thread(self) -> _Thread:
        thread = _Thread(self._keep)
        thread.start()
        return thread

    def _keep(self, thread: _Thread) -> bool:
        """Whether a thread that has nothing to do shall wait for something."""
        with self._changing:
            kept = len(self._spare) < SPARE
            if kept:
                self._spare.append(thread)
        return kept


class _Thread(threading.Thread):
    """Does one piece of work after the other."""

    def __init__(self, keep: Callable[[_Thread], bool]):
        super().__init__(daemon=True)
        self._keep = keep
        self._given = threading.Lock()  # open while there is something to do
        self._given.acquire()
        self._work: Callable[[], None]

    def begin(self, work: Callable[[], None]) -> None:
        """Give it something to do, when it has nothing."""
        self._work = work
        self._given.release()

    def run(self) -> None:
        """Until it isn't kept."""
        kept = True
        while kept:
            self._given.acquire()
            self._work()
            kept = self._keep(self)
