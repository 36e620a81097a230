# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Callers that are killed, in a hurry or too many; servers that die, stall or are asked to end."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge_util import Node
from faults_util import FAULTY, HELLO, IDLE_THREADS, Faults, Inherited, listening, start_call
from pve_pybridge.process import KILL_AFTER_SECONDS
from pve_pybridge.testing.perl import PerlCrashed
from wire_util import Client, after_welcome, fake_server, welcome


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with Node(tmp_path_factory.mktemp("callers")) as node:
        yield Faults(node)


@pytest.fixture
def own(node: Node) -> Faults:
    """A plugin server that may be lost."""
    return Faults(node, "--drain", "2")


# --- callers that go away ----------------------------------------------------------------------

SIGNALLED = {
    "KILL": ("", ""),
    "TERM": ('$SIG{TERM} = sub { die "interrupted by signal\\n" };', "interrupted by signal\n"),
    "ALRM": ('$SIG{ALRM} = sub { die "got timeout\\n" }; alarm(2);', "got timeout\n"),
}


@pytest.mark.contract("C-022", "C-023", "C-060")
@pytest.mark.parametrize(
    ("how", "fault"),
    [("KILL", "run"), ("KILL", "stubborn"), ("KILL", "hang"), ("TERM", "run"), ("ALRM", "run")],
)
def test_interrupted_alloc_leaves_nothing(faults: Faults, how: str, fault: str) -> None:
    """No process of its command, no half-made file; what the caller does next works at once."""
    mode = f"alloc_image={fault}"
    seconds = str(round(60 + time.monotonic() % 1, 6))  # finds exactly our commands
    scfg = faults.scfg(mode, dir=faults.volumes, delay=seconds)
    preparation, error = SIGNALLED[how]
    tag = f"{how}-{fault}"
    code = f"""
        my ($scfg, $tag) = @ARGS;
        {preparation}
        my $class = 'PVE::Storage::Custom::PyBridge::faulty';
        eval {{ $class->alloc_image('s', $scfg, 100, 'raw', $tag, 1024) }};
        my $err = $@;
        my $started = time;
        $class->deactivate_volume('s', $scfg, "vm-100-$tag");
        $class->free_image('s', $scfg, "vm-100-$tag", 0, 'raw');
        return [$err, time - $started];
    """
    half = faults.volumes / f"vm-100-{tag}.half"
    with faults.node.session() as perl:

        def interrupt() -> None:
            faults.wait_for(half.exists)
            if fault != "hang":
                faults.wait_for(lambda: faults.commands(seconds))
            if how != "ALRM":
                os.kill(perl.pid, getattr(signal, f"SIG{how}"))

        killer = threading.Thread(target=interrupt)
        killer.start()
        if how == "KILL":
            with pytest.raises(PerlCrashed):
                perl.run(code, scfg, tag)
        else:
            assert perl.run(code, scfg, tag).ok() == [error, 0]
        killer.join()
    grace = KILL_AFTER_SECONDS if fault == "stubborn" else 0
    faults.wait_for(lambda: not half.exists(), 5 + grace)
    assert faults.journalled(f"undone-{tag}")
    assert not faults.commands(seconds)
    assert not list(faults.volumes.iterdir())


def test_gone_before_it_began(own: Faults) -> None:
    """A caller that gives up while the server is down must not have its call executed later."""
    own.server.stop()
    scfg = own.scfg(journal=own.journal)
    args = {"vmid": 100, "format": "raw", "size": 1}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own.server.socket))
        listener.listen()
        with Client(own.server.socket, None) as client:
            client.send("hello", HELLO)
            client.send("call", 1, "alloc_image", "s", scfg, {**args, "name": "late"}, {})
        with Client(own.server.socket, None) as client:
            client.send("hello", HELLO)
            client.send("call", 1, "alloc_image", "s", scfg, {**args, "name": "here"}, {})
            with Inherited(own.node, listener):
                assert client.receive()[0] == "welcome"
                assert client.answer()[0] == "result"
    assert own.journalled() == ["here"]


@pytest.mark.contract("C-026")
def test_deadline_is_the_callers_alarm(faults: Faults) -> None:
    """The plugin's deadline is the sooner of PVE's alarm and the method's own limit."""
    code = """
        my ($scfg, $alarm) = @ARGS;
        local $SIG{ALRM} = sub { die "got timeout\\n" };
        alarm($alarm);
        eval { PVE::Storage::Custom::PyBridge::faulty->activate_volume('s', $scfg, 'vm-1-a') };
        my $left = alarm(0);
        return [$@, $left];
    """
    scfg = faults.scfg("activate_volume=hang", delay=0)
    assert faults.node.perl(code, scfg, 40).ok()[1] in (39, 40)
    scfg = faults.scfg("activate_volume=report", delay=0)
    error, _ = faults.node.perl(code, scfg, 40).ok()
    assert 39 < float(error) <= 40
    error, _ = faults.node.perl(code, scfg, 0).ok()
    assert error == "none\n"


def test_hang_after_a_row_of_long_calls(faults: Faults) -> None:
    """These have a thread of their own, and in between the watcher may fall asleep."""
    with Client(faults.server.socket, HELLO) as client:
        slow, hangs = ({"faulty-mode": "hang", "faulty-delay": delay} for delay in ("0.005", "60"))
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            assert client.call("activate_volume", scfg=slow, volname="vm-1-a")[0] == "result"
            time.sleep(0.03)
        client.send("call", 2, "activate_volume", "s", hangs, {"volname": "vm-1-a"}, {})
        client.socket.settimeout(8)
        assert client.receive() == ("alive", {"id": 2})


# --- servers that go away ----------------------------------------------------------------------


def test_dead_silent_server(node: Node) -> None:
    """Signs of life keep a long call waiting; without them it ends."""
    node.enable(FAULTY)

    def silent(connection: Client) -> None:
        welcome(connection)
        connection.socket.recv(1)

    def alive(connection: Client) -> None:
        welcome(connection)
        for _ in range(6):
            time.sleep(0.5)
            connection.send("alive", 1)
        connection.send("result", 1, None, {})

    socket_ = node.run / "faulty.sock"
    code = """
        require PVE::Storage::PyBridge::Client;
        local $PVE::Storage::PyBridge::Connection::SILENCE_SECONDS = 1;
        my $scfg = { type => 'faulty' };
        my $started = time;
        eval { PVE::Storage::Custom::PyBridge::faulty->deactivate_volume('s', $scfg, 'vm-1-a') };
        return [$@, time - $started];
    """
    about = "storage 's': deactivate_volume: the plugin server gave no sign of life for 1 s\n"
    with fake_server(socket_, silent, alive):
        error, seconds = node.perl(code).ok()
        assert error == about
        assert seconds <= 2
        error, seconds = node.perl(code).ok()
        assert error == ""
        assert seconds >= 2


def test_outcome_unknown(node: Node) -> None:
    """Only where it is: a change that the server may have seen, and that nobody repeats."""
    node.enable(FAULTY)
    lost = after_welcome(b"")
    with fake_server(node.run / "faulty.sock", lost, lost) as called:
        for method, fate in (("alloc_image", ", outcome unknown"), ("activate_volume", "")):
            code = f"""
                my $scfg = {{ type => 'faulty' }};
                return PVE::Storage::Custom::PyBridge::faulty->{method}('s', $scfg, 'vm-1-a');
            """
            answer = node.perl(code)
            ended = "the plugin server ended during the call"
            assert answer.error == f"storage 's': {method}: {ended}{fate}\n"
    assert called == ["alloc_image", "activate_volume"]


# --- too many ----------------------------------------------------------------------------------


def test_connection_limit(own: Faults) -> None:
    """1024 callers are served, the next one is told why it isn't."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with own.node.session() as perl, ExitStack() as stack:
            clients = [stack.enter_context(Client(own.server.socket, HELLO)) for _ in range(1024)]
            busy = "1024 callers are connected, no more are taken"
            error = f"storage 's': path: the plugin server refused us: {busy}\n"
            for _ in range(5):
                assert own.call_in(perl, "path", own.scfg(), "vm-1-a", "s").error == error
            with Client(own.server.socket, None) as client:
                assert client.receive()[1]["error"] == {"kind": "busy", "message": busy}
            assert clients[0].call("path", scfg={}, volname="vm-1-a")[0] == "result"
            clients[1].socket.close()
            own.wait_for(lambda: own.call_in(perl, "path", own.scfg(), "vm-1-a", "s").error is None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    own.wait_for(lambda: own.threads() <= IDLE_THREADS)


# --- the end, as systemd has it ----------------------------------------------------------------


@pytest.fixture
def listener(node: Node) -> Iterator[socket.socket]:
    """The socket as systemd holds it: across the life of servers."""
    with listening(node) as it:
        yield it


def test_drain_and_successor(node: Node, listener: socket.socket) -> None:
    """TERM: the running call is answered, new callers wait for the next process, none fails."""
    with Inherited(node, listener) as first:
        assert first.state().startswith("READY=1")
        assert first.said() == "WATCHDOG=1"
        idle = node.session()
        with idle, start_call(node, 1.5) as running, node.session() as fresh:
            path = "return PVE::Storage::Custom::PyBridge::faulty->path({}, 'vm-1-a', 's');"
            assert idle.run(path).ok() == "/dev/vm-1-a"
            first.process.send_signal(signal.SIGTERM)
            assert first.state() == "STOPPING=1"
            answers = []
            threads = [
                threading.Thread(target=lambda perl: answers.append(perl.run(path)), args=(perl,))
                for perl in (idle, fresh)
            ]
            for thread in threads:
                thread.start()
            assert running.answer()[0] == "result"
            assert first.end()[0] == 0
            assert answers == []
            with Inherited(node, listener) as second:
                assert second.state().startswith("READY=1")
                for thread in threads:
                    thread.join()
                assert [answer.ok() for answer in answers] == ["/dev/vm-1-a"] * 2
    assert (node.run / "faulty.sock").is_socket()


def test_signals_do_not_end_the_wait_for_a_server(node: Node, listener: socket.socket) -> None:
    """PVE's daemons get SIGCHLD all the time; a full socket makes connect() wait."""
    listener.listen(0)
    code = """
        my $signals = 0;
        local $SIG{ALRM} = sub { $signals++ };
        Time::HiRes::setitimer(0, 0.2, 0.2);
        my $path = PVE::Storage::Custom::PyBridge::faulty->path({}, 'vm-1-a', 's');
        Time::HiRes::setitimer(0, 0, 0);
        return [$path, $signals > 1];
    """
    path = str(node.run / "faulty.sock")
    with ExitStack() as stack:
        perl = stack.enter_context(node.session())
        perl.run("use Time::HiRes;").ok()
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)  # there is room for one
        answers = []
        thread = threading.Thread(target=lambda: answers.append(perl.run(code)))
        thread.start()
        time.sleep(1)
        stack.enter_context(Inherited(node, listener))
        thread.join()
    assert answers[0].ok() == ["/dev/vm-1-a", True]


def test_drain_limit(node: Node, listener: socket.socket) -> None:
    """What takes longer is cancelled, and told why; what can't be cancelled is left behind."""
    with Inherited(node, listener, "--drain", "0.5") as server:
        assert server.state().startswith("READY=1")
        with start_call(node, 60) as running, Client(node.run / "faulty.sock", HELLO) as stuck:
            scfg = {"faulty-mode": "sleep", "faulty-delay": "60"}
            stuck.send("call", 1, "activate_volume", "s", scfg, {"volname": "vm-1-a"}, {})
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            error = running.answer()[1]["error"]
            message = "activate_volume: cancelled, because the plugin server ends"
            assert error == {"kind": "cancelled", "message": message}
            status, errors = server.end()
            assert status == 0
            assert "faulty: calls still ran after 0.5 s\n" in errors
            with pytest.raises(EOFError):
                stuck.answer()


def test_term_twice(node: Node, listener: socket.socket) -> None:
    with Inherited(node, listener) as server:
        assert server.state().startswith("READY=1")
        with start_call(node, 60) as running:
            server.process.send_signal(signal.SIGTERM)
            assert server.state() == "STOPPING=1"
            server.process.send_signal(signal.SIGTERM)
            assert server.end()[0] == 128 + signal.SIGTERM
            with pytest.raises(EOFError):
                running.answer()


def test_plugins_children_do_not_keep_the_socket(node: Node, listener: socket.socket) -> None:
    with Inherited(node, listener) as server:
        assert server.state().startswith("READY=1")
        inode = os.readlink(f"/proc/{server.process.pid}/fd/3")
        flags = Path(f"/proc/{server.process.pid}/fdinfo/3").read_text()
        assert inode.startswith("socket:")
        assert int(flags.partition("flags:")[2].split()[0], 8) & os.O_CLOEXEC


# --- looking at it -----------------------------------------------------------------------------


def test_stats_and_top(faults: Faults) -> None:
    """A running call with who asked, since when; and the percentiles of those that ended."""
    upid = "UPID:node1:00001267:0004D2A1:6745F00D:qmcreate:100:root@pam:"
    hello = {**HELLO, "pid": 4711, "command": f"task {upid}"}
    node = faults.node
    for _ in range(20):
        faults.call("path", faults.scfg(), "vm-1-a", "s").ok()
    with Client(faults.server.socket, hello) as client:
        scfg = {"faulty-mode": "hang", "faulty-delay": "60"}
        client.send("call", 1, "activate_volume", "tank", scfg, {"volname": "vm-1-a"}, {})
        faults.wait_for(lambda: faults.stats()["running"])
        figures = faults.stats()
        (running,) = figures["running"]
        assert running.pop("age") < 10
        assert running == {
            "method": "activate_volume",
            "storeid": "tank",
            "pid": 4711,
            "command": f"task {upid}",
            "task": upid,
        }
        assert figures["pid"] == faults.server.process.pid
        path = figures["methods"]["path"]
        assert path["calls"] >= 20
        assert 0 < path["p50"] <= path["p99"] <= path["max"] < 1000
        text = node.cli("stats").stdout
        assert f"4711 task {upid}" in text
        assert "p99 ms" in text
        top = subprocess.Popen(
            # a shell that put us in the background has us ignore it, and top would inherit that
            [
                *("env", "--default-signal=INT"),
                *(sys.executable, "-m", "pve_pybridge", "top", "--interval", "0.1"),
            ],
            env={**os.environ, **node.env},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert top.stdout is not None
        while upid not in top.stdout.readline():
            assert top.poll() is None
        top.send_signal(signal.SIGINT)
        top.communicate(timeout=10)
        assert top.returncode == 0
    done = node.cli("stats", "nothing", check=False)
    assert done.returncode == 1
    assert "the server for type 'nothing' is not running" in done.stderr


def test_stats_of_a_server_that_does_not_answer(own: Faults) -> None:
    os.kill(own.server.process.pid, signal.SIGSTOP)
    try:
        done = own.node.cli("stats", check=False)
    finally:
        os.kill(own.server.process.pid, signal.SIGCONT)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr == "pve-pybridge: faulty: the plugin server doesn't answer\n"


def test_late_frame_meets_caller_that_does_not_read(own: Faults) -> None:
    """The watcher never waits for anybody: others get their answers on time."""
    with Client(own.server.socket, HELLO) as deaf:
        scfg = {"faulty-mode": "flood", "faulty-amount": "8"}
        deaf.send("call", 1, "status", "s", scfg, {}, {})
        started = time.monotonic()
        slow = own.scfg("status=sleep", delay=30)
        assert own.call("status", "t", slow, {}, context="list").ok() == []
        assert time.monotonic() - started < 15
