# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Who serves callers: one thread the quick ones, further threads what takes long."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from probe_util import Probe, wait_until
from pve_pybridge.crew import SPARE, Crew
from wire_util import Client


class Caller:
    """A guest over a real socket: each byte that it sends is served by *work*."""

    made: ClassVar[list[Caller]] = []

    def __init__(self, crew: Crew, work: Callable[[Caller], object] | None = None):
        self.mine, self._theirs = socket.socketpair()
        self.mine.settimeout(5)
        self._work = work
        self.served_by: list[int] = []
        self.closed = threading.Event()
        self.made.append(self)
        crew.add(self)

    def fileno(self) -> int:
        return self._theirs.fileno()

    def serve(self) -> bool:
        try:
            data = self._theirs.recv(1)
            if data:
                self.served_by.append(threading.get_ident())
                if self._work is not None:
                    self._work(self)
                self._theirs.sendall(data)
        except OSError:
            return False
        return bool(data)

    def close(self) -> None:
        self._theirs.close()
        self.closed.set()

    def call(self) -> None:
        """Returns when it is answered."""
        self.mine.sendall(b"x")
        assert self.mine.recv(1) == b"x"


@pytest.fixture
def crew() -> Iterator[Crew]:
    """At work."""
    crew = Crew()
    crew.start()
    yield crew
    while Caller.made:
        caller = Caller.made.pop()
        caller.mine.close()
        assert caller.closed.wait(5)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a slow call waits for."""
    event = threading.Event()
    yield event
    event.set()


def test_quick_callers_share_a_thread(crew: Crew) -> None:
    callers = [Caller(crew) for _ in range(5)]
    for _ in range(3):
        for caller in callers:
            caller.call()
    assert len({ident for caller in callers for ident in caller.served_by}) == 1


def test_who_is_set_aside_keeps_nobody_waiting(crew: Crew, gate: threading.Event) -> None:
    def work(caller: Caller) -> None:
        crew.aside(caller)
        crew.aside(caller)  # saying it twice makes no second leader
        gate.wait(5)

    slow, quick = Caller(crew, work), Caller(crew)
    slow.mine.sendall(b"x")
    wait_until(lambda: slow.served_by)
    quick.call()
    assert quick.served_by[0] != slow.served_by[0]
    gate.set()
    assert slow.mine.recv(1) == b"x"
    slow.call()  # it is waited for again
    quick.call()


def test_who_takes_long_unannounced_is_replaced(crew: Crew, gate: threading.Event) -> None:
    slow, quick = Caller(crew, lambda caller: gate.wait(5)), Caller(crew)
    slow.mine.sendall(b"x")
    wait_until(lambda: slow.served_by)
    quick.mine.sendall(b"x")
    assert crew.look()  # somebody was served since
    assert not quick.served_by
    assert not crew.look()  # and it is still the same one
    assert quick.mine.recv(1) == b"x"
    assert not gate.is_set()


def test_who_calls_slowly_again_keeps_the_thread(crew: Crew) -> None:
    """Until a call of it is quick, or none comes for a while."""
    takes = 0.01

    def work(caller: Caller) -> None:
        crew.aside(caller)
        time.sleep(takes)

    caller, other = Caller(crew, work), Caller(crew)
    for _ in range(4):
        caller.call()
    assert len(set(caller.served_by)) == 1
    other.call()
    takes = 0.0
    caller.call()  # quick: back to the others, among whom it is served next
    wait_until(lambda: caller.fileno() in crew._guests)
    caller.call()
    assert caller.served_by[4] == caller.served_by[0]
    assert caller.served_by[5] == other.served_by[0]


def test_who_calls_alone_has_a_thread_until_others_call(crew: Crew) -> None:
    alone, other = Caller(crew), Caller(crew)
    for _ in range(40):
        alone.call()
    assert alone.fileno() not in crew._guests  # whoever leads doesn't wait for it
    other.call()  # not by the thread that waits for the first one
    assert other.served_by[0] != alone.served_by[-1]
    alone.call()
    wait_until(lambda: alone.fileno() in crew._guests)
    alone.call()
    other.call()
    assert alone.served_by[-1] == other.served_by[-1]
    for _ in range(40):
        alone.call()
    alone.mine.close()
    assert alone.closed.wait(5)
    other.call()


class Slow:
    """An epoll in which others may come between any two steps."""

    def __init__(self, real: select.epoll):
        self.poll = real.poll
        self._real = real

    def register(self, guest: Caller, events: int) -> None:
        time.sleep(0.0001)
        self._real.register(guest, events)

    def unregister(self, guest: Caller) -> None:
        time.sleep(0.0001)
        self._real.unregister(guest)


def test_replaced_at_any_moment(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also just when the turn is over: nobody is forgotten."""
    over = threading.Event()
    monkeypatch.setattr(crew, "_epoll", Slow(crew._epoll))

    def look() -> None:
        while not over.is_set():
            crew.look()

    def calls(caller: Caller) -> None:
        for _ in range(300):
            caller.call()

    looking = threading.Thread(target=look)
    looking.start()
    callers = [Caller(crew) for _ in range(4)]
    calling = [threading.Thread(target=calls, args=[caller]) for caller in callers]
    for thread in calling:
        thread.start()
    for thread in calling:
        thread.join(60)
    over.set()
    looking.join()
    assert [len(caller.served_by) for caller in callers] == [300] * 4
    assert len({ident for caller in callers for ident in caller.served_by}) > 1


def test_many_at_once_that_take_long(crew: Crew) -> None:
    """Each has a thread of its own; afterwards only a few of these are kept."""
    together = threading.Barrier(21)

    def work(caller: Caller) -> None:
        crew.aside(caller)
        together.wait(5)

    before = threading.active_count()
    callers = [Caller(crew, work) for _ in range(20)]
    for caller in callers:
        caller.mine.sendall(b"x")
    together.wait(5)
    for caller in callers:
        assert caller.mine.recv(1) == b"x"
    assert len({ident for caller in callers for ident in caller.served_by}) == 20
    wait_until(lambda: threading.active_count() <= before - 1 + SPARE)


def test_who_hangs_up_is_forgotten(crew: Crew) -> None:
    """During its turn, beside it, and while nothing runs; descriptors are used again."""

    def hang_up(caller: Caller) -> None:
        caller.mine.close()

    def aside(caller: Caller) -> None:
        crew.aside(caller)
        caller.mine.close()

    for work in (None, aside, hang_up):
        leaving, staying = Caller(crew, work), Caller(crew)
        fd = leaving.fileno()
        leaving.mine.sendall(b"x")
        if work is None:
            assert leaving.mine.recv(1) == b"x"
            leaving.mine.close()
        assert leaving.closed.wait(5)
        staying.call()
        fresh = Caller(crew)
        assert fresh.fileno() == fd
        fresh.call()


def test_the_bell_rings_only_where_nobody_watches(crew: Crew) -> None:
    caller = Caller(crew)
    rung = select.poll()
    rung.register(crew.bell, select.POLLIN)
    crew.watch(rung=False)
    caller.call()
    assert not rung.poll(0)
    wait_until(crew.unwatch)  # the turn ends after the answer
    caller.call()
    assert rung.poll(1000)
    crew.watch(rung=True)
    assert not rung.poll(0)


def test_no_thread_to_be_had() -> None:
    """Then callers wait for each other; it is said, and passes."""
    code = """
import logging, resource, socket, threading, time
logging.basicConfig(format="%(message)s")
from test_crew import Caller
from pve_pybridge.crew import Crew
crew, gate = Crew(), threading.Event()
crew.start()
spare = Caller(crew, lambda caller: crew.aside(caller) or gate.wait(5))
spare.mine.sendall(b"x")  # takes the thread in reserve
slow, quick = Caller(crew, lambda caller: crew.aside(caller) or gate.wait(5)), Caller(crew)
while not spare.served_by:
    time.sleep(0.01)
threading.stack_size(256 << 20)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20),) * 2)
slow.mine.sendall(b"x")
while not slow.served_by:
    time.sleep(0.01)
quick.mine.sendall(b"x")
time.sleep(0.1)
print(len(quick.served_by))
gate.set()
print(quick.mine.recv(1))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="tests"
    )
    assert run.stdout == "0\nb'x'\n"
    assert run.stderr == "can't start new thread: callers wait for each other\n"


# --- a server ----------------------------------------------------------------------------------


def test_half_a_frame_keeps_nobody_waiting(probe: Probe) -> None:
    with Client(probe.server.socket) as half, Client(probe.server.socket) as whole:
        half.socket.sendall(b"\0\0\0\x20half")
        started = time.monotonic()
        for _ in range(20):
            assert whole.call("get_identity", scfg={})[0] == "result"
        assert time.monotonic() - started < 2


def test_who_does_not_read_keeps_nobody_waiting(probe: Probe) -> None:
    """An answer that doesn't fit into the socket waits in a thread of its own."""
    with Client(probe.server.socket) as deaf, Client(probe.server.socket) as other:
        for number in range(3000):
            deaf.socket.settimeout(0.2)
            try:
                deaf.send("call", number % 100 + 1, "get_identity", "s", {}, {}, {})
            except TimeoutError:
                break
        else:
            pytest.fail("everything fitted")
        started = time.monotonic()
        for _ in range(20):
            assert other.call("get_identity", scfg={})[0] == "result"
        assert time.monotonic() - started < 2
