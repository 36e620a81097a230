# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""HUP with systemd's socket: a successor takes over, calls of any length finish, none fails.

And one that can't serve at all tells those who wait for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_util import Node
from faults_util import FAULTY, Inherited, listening, start_call
from pve_pybridge import codec

PATH = "return PVE::Storage::Custom::PyBridge::faulty->path({}, 'vm-1-a', 's');"


@pytest.fixture
def listener(node: Node) -> Iterator[socket.socket]:
    with listening(node) as it:
        yield it


@pytest.fixture
def plugin(node: Node) -> Path:
    """A copy that a test may spoil."""
    copy = node.base / "faulty_copy.py"
    copy.write_text(FAULTY.read_text())
    return copy


def main_pid(state: str) -> int:
    ready, pid = state.split("\n")
    assert ready == "READY=1"
    return int(pid.removeprefix("MAINPID="))


@contextlib.contextmanager
def succeeded(first: Inherited) -> Iterator[int]:
    """The successor's process, once it serves; ended with the test."""
    pid = main_pid(first.state())
    try:
        assert pid != first.process.pid
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)


def signal_another_thread(pid: int, signum: int) -> None:
    """What the kernel does now and then with a signal for a process some of whose threads work."""
    others = [int(tid) for tid in os.listdir(f"/proc/{pid}/task") if tid != str(pid)]
    assert ctypes.CDLL(None).tgkill(pid, others[0], signum) == 0


def wait_gone(pid: int) -> None:
    ends = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < ends, f"process {pid} stays"
        time.sleep(0.02)


def test_a_successor_serves_while_a_call_runs_on(node: Node, listener: socket.socket) -> None:
    """The drain's limit, one second here, is for a stop only."""
    with Inherited(node, listener, "--drain", "1") as first:
        assert main_pid(first.state()) == first.process.pid
        with node.session() as perl, start_call(node, 4.0) as running:
            assert perl.run(PATH).ok() == "/dev/vm-1-a"
            first.process.send_signal(signal.SIGHUP)
            with succeeded(first):
                started = time.monotonic()
                assert perl.run(PATH).ok() == "/dev/vm-1-a"
                assert time.monotonic() - started < 2, "it waited for the long call"
                assert first.process.poll() is None, "the long call still runs"
                assert running.answer()[0] == "result"
                assert first.process.wait(10) == 0
                assert perl.run(PATH).ok() == "/dev/vm-1-a"
            assert first.state() == "STOPPING=1", "said by the successor, not by the old one"


def test_busy_callers_notice_nothing(node: Node, listener: socket.socket) -> None:
    answers: list[str] = []
    stop = threading.Event()

    def call() -> None:
        with node.session() as perl:
            while not stop.is_set():
                answers.append(str(perl.run(PATH).ok()))

    with Inherited(node, listener) as first:
        main_pid(first.state())
        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        while len(answers) < 50:
            time.sleep(0.01)
        first.process.send_signal(signal.SIGHUP)
        with succeeded(first):
            assert first.process.wait(10) == 0
            enough = len(answers) + 50
            while len(answers) < enough and any(caller.is_alive() for caller in callers):
                time.sleep(0.01)
            stop.set()
            for caller in callers:
                caller.join()
    assert len(answers) >= enough
    assert set(answers) == {"/dev/vm-1-a"}


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_another_thread_gets(
    node: Node, listener: socket.socket, signum: signal.Signals
) -> None:
    """Callers stay connected, so nothing else wakes the thread that runs Python's handlers."""
    with Inherited(node, listener) as first, node.session() as perl:
        main_pid(first.state())
        assert perl.run(PATH).ok() == "/dev/vm-1-a"
        signal_another_thread(first.process.pid, signum)
        with succeeded(first) if signum == signal.SIGHUP else contextlib.nullcontext():
            assert first.process.wait(10) == 0


def test_a_successor_that_cannot_start_changes_nothing(
    node: Node, listener: socket.socket, plugin: Path
) -> None:
    with Inherited(node, listener, plugin=plugin) as first, node.session() as perl:
        main_pid(first.state())
        good = plugin.read_text()
        plugin.write_text("nonsense(")
        first.process.send_signal(signal.SIGHUP)
        assert first.process.stderr is not None
        said = [first.process.stderr.readline() for _ in range(3)]
        assert "syntax error in line 1" in said[1]
        assert "going on without it" in said[2]
        assert perl.run(PATH).ok() == "/dev/vm-1-a"
        plugin.write_text(good)
        first.process.send_signal(signal.SIGHUP)
        with succeeded(first):
            assert perl.run(PATH).ok() == "/dev/vm-1-a"


def test_who_waits_for_a_server_that_cannot_start_is_told_why(
    node: Node, listener: socket.socket, plugin: Path
) -> None:
    plugin.write_text("nonsense(")
    told: list[str] = []

    def call() -> None:
        with node.session() as perl:
            told.append(perl.run(PATH).error or "")

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    while waiting(listener) < 3:
        time.sleep(0.02)
    with Inherited(node, listener, plugin=plugin) as server:
        assert server.end()[0] == 1
    for caller in callers:
        caller.join()
    reason = f"{plugin}: syntax error in line 1: '(' was never closed"
    assert told == [f"storage 's': path: the plugin server refused us: {reason}\n"] * 3


def waiting(listener: socket.socket) -> int:
    """How many callers nobody has accepted yet, as the kernel counts them."""
    path = listener.getsockname()
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return sum(row[-1] == path and row[5] == "02" for row in rows)


def test_without_msgpack(node: Node, listener: socket.socket) -> None:
    """The wire's own module may be what is missing."""
    hide = node.base / "hide"
    hide.mkdir()
    (hide / "msgpack.py").write_text("raise ModuleNotFoundError(name='msgpack')")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(listener.getsockname())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(hide))
            with Inherited(node, listener) as server:
                status, said = server.end()
        data = caller.recv(10000)
    reason = "python3-msgpack is missing: apt install it"
    assert (status, said) == (1, f"pve-pybridge: {reason}\n")
    message = codec.decode(data[codec.HEADER.size :])
    assert message[0] == "error"
    assert message[2] == {"kind": "user", "message": reason}
