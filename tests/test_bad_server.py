# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A plugin server that is away, somebody else's, out of its mind, or dies: one line each."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge_util import Node
from probe_util import CALL, PROBE, VOLUME, Probe, enable_both, scfg, wait_until
from pve_pybridge import codec
from pve_pybridge.testing.perl import PerlResult
from wire_util import Behaviour, Client, after_welcome, fake_server, frame, welcome

S = scfg()
SNAPSHOT = ("volume_snapshot", S, "p1", VOLUME, "s1")
IDENTITY = ("get_identity", S, "p1")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def lonely(node: Node) -> Node:
    """Both types registered, no server."""
    enable_both(node)
    node.run.mkdir(mode=0o700)
    return node


def call(node: Node, method: str, *given: object) -> PerlResult:
    return node.perl(CALL, "probe", method, *given)


# --- not there, or not ours --------------------------------------------------------------------

WHAT = "storage 'p1': plugin server for type 'probe'"


def test_server_never_started(lonely: Node) -> None:
    path = lonely.run / "probe.sock"
    expected = f"{WHAT} is not running ({path}: No such file or directory)\n"
    assert call(lonely, *IDENTITY).error == expected
    assert call(lonely, *SNAPSHOT).error == expected


def test_server_gone_without_farewell(lonely: Node) -> None:
    path = lonely.run / "probe.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    expected = f"{WHAT} is not running ({path}: Connection refused)\n"
    assert call(lonely, *SNAPSHOT).error == expected


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket"])
def test_something_else_in_its_place(lonely: Node, kind: str) -> None:
    path = lonely.run / "probe.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "file":
            path.write_text("")
        elif kind == "directory":
            path.mkdir()
        else:
            listener.bind(str(lonely.base / "elsewhere"))
            listener.listen()
            path.symlink_to(lonely.base / "elsewhere")
        assert call(lonely, *SNAPSHOT).error == f"{WHAT}: {path} is no socket\n"


@ROOT_ONLY
def test_socket_of_another_user(lonely: Node) -> None:
    path = lonely.run / "probe.sock"
    with fake_server(path, after_welcome(b"")) as called:
        os.chown(path, 65534, 65534)
        error = call(lonely, *SNAPSHOT).error
        assert error == f"{WHAT}: {path} belongs to user 65534, not to root\n"
        assert called == []


@ROOT_ONLY
def test_server_of_another_user(lonely: Node) -> None:
    """The socket may be root's, the one who listens on it isn't."""
    path = lonely.run / "probe.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        error = call(lonely, *SNAPSHOT).error
        assert error == f"{WHAT}: it runs as user 65534, not as root\n"


@pytest.mark.contract("C-001")
def test_other_storages_go_on(lonely: Node) -> None:
    """The storage is inactive, with a warning; the rest is not affected (D11)."""
    lonely.add("p1", "probe", content="images")
    code = """
        my $cfg = PVE::Storage::config();
        my $info = PVE::Storage::storage_info($cfg);
        return { map { $_ => $info->{$_}->{active} } keys %$info };
    """
    answer = lonely.perl(code)
    assert answer.ok()["p1"] == 0
    assert f"{WHAT} is not running" in answer.stderr


# --- out of its mind ---------------------------------------------------------------------------

NONSENSE: list[tuple[str, Behaviour, str]] = [
    (
        "refusal",
        lambda c: c.send("error", 0, {"kind": "protocol", "message": "too old"}),
        "the plugin server refused us: too old",
    ),
    (
        "no welcome",
        lambda c: c.send("alive", 1),
        "the plugin server refused us: unexpected 'alive'",
    ),
    ("no msgpack", after_welcome(b"\0\0\0\1\xc1"), "answer is no msgpack array"),
    ("no array", after_welcome(b"\0\0\0\1\x80"), "answer is no msgpack array"),
    ("empty array", after_welcome(b"\0\0\0\1\x90"), "answer is no msgpack array"),
    (
        "oversized",
        after_welcome(codec.HEADER.pack((64 << 20) + 1)),
        "answer of 67108865 bytes exceeds the limit of 67108864",
    ),
    (
        "text",
        after_welcome(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "answer of 1213486160 bytes exceeds the limit of 67108864",
    ),
    (
        "unknown kind",
        after_welcome(frame("gift", 1)),
        "unknown kind of message from the plugin server",
    ),
    (
        "kind undef",
        after_welcome(b"\0\0\0\2\x91\xc0"),
        "unknown kind of message from the plugin server",
    ),
    (
        "second welcome",
        after_welcome(frame("welcome", {})),
        "unexpected 'welcome' from the plugin server",
    ),
    (
        "another's answer",
        after_welcome(frame("result", 77, None, {})),
        "unexpected 'result' from the plugin server",
    ),
    (
        "short result",
        after_welcome(frame("result", 1)),
        "malformed 'result' from the plugin server",
    ),
    (
        "error as text",
        after_welcome(frame("error", 1, "no")),
        "malformed 'error' from the plugin server",
    ),
    ("hang up", after_welcome(b""), "the plugin server ended during the call"),
    (
        "half a frame",
        after_welcome(frame("result", 1, "x", {})[:9]),
        "the plugin server ended during the call",
    ),
]


@pytest.mark.parametrize(
    ("behaviour", "reason"), [case[1:] for case in NONSENSE], ids=[case[0] for case in NONSENSE]
)
def test_nonsense(lonely: Node, behaviour: Behaviour, reason: str) -> None:
    """One line with storage and method. Whether a change was made, nobody can know."""
    path = lonely.run / "probe.sock"
    with fake_server(path, behaviour, behaviour) as called:
        fate = "" if "refused" in reason else ", outcome unknown"
        answer = call(lonely, *SNAPSHOT)
        assert answer.error == f"storage 'p1': volume_snapshot: {reason}{fate}\n"
        assert answer.warnings == []
        assert call(lonely, *IDENTITY).error == f"storage 'p1': get_identity: {reason}\n"
        assert called == ["volume_snapshot", "get_identity"]


def answer_calls(*answers: bytes | None) -> Behaviour:
    """Greet, then answer one call after the other; None: hang up instead."""

    def behave(connection: Client) -> None:
        welcome(connection)
        for index, answer in enumerate(answers):
            if index:
                connection.receive()
            if answer is None:
                return
            connection.socket.sendall(answer)
        connection.socket.settimeout(20)
        connection.socket.recv(1)

    return behave


GOOD = [frame("result", number, "good", {}) for number in range(1, 5)]


@pytest.mark.contract("C-025")
def test_lost_query_is_repeated_lost_change_is_not(lonely: Node) -> None:
    path = lonely.run / "probe.sock"
    losing = answer_calls(GOOD[0], None)
    with fake_server(path, losing, answer_calls(GOOD[0])) as called:
        assert [call(lonely, *IDENTITY).ok() for _ in range(2)] == ["good", "good"]
        assert called == ["get_identity", "get_identity"]
    with fake_server(path, losing, answer_calls(GOOD[0])) as called:
        assert call(lonely, *IDENTITY).ok() == "good"
        lost = "storage 'p1': volume_snapshot: the plugin server ended during the call"
        assert call(lonely, *SNAPSHOT).error == f"{lost}, outcome unknown\n"
        assert called == ["get_identity"]
        assert call(lonely, *IDENTITY).ok() == "good"
    with fake_server(path, losing, answer_calls(None)) as called:
        assert call(lonely, *IDENTITY).ok() == "good"
        lost = "storage 'p1': get_identity: the plugin server ended during the call\n"
        assert call(lonely, *IDENTITY).error == lost
        assert called == ["get_identity", "get_identity"]


@contextmanager
def deadline(node: Node, seconds: int) -> Iterator[None]:
    """Give get_identity another deadline, for processes that start now."""
    file = node.manifests / "probe.json"
    data = json.loads(file.read_text())
    rows = data["methods"]["forward"]
    rows["get_identity"] = re.sub("deadline=[0-9.]+", f"deadline={seconds}", rows["get_identity"])
    file.write_text(json.dumps(data))
    yield


def test_deadline_of_a_silent_server(lonely: Node) -> None:
    """It is not asked a second time: that would only double the wait."""
    silent = answer_calls(GOOD[0], b"")
    with deadline(lonely, 1), fake_server(lonely.run / "probe.sock", silent, silent) as called:
        assert call(lonely, *IDENTITY).ok() == "good"
        started = time.monotonic()
        error = call(lonely, *IDENTITY).error
        assert error == "storage 'p1': get_identity: got timeout after 1 s\n"
        assert time.monotonic() - started < 4
        assert called == ["get_identity"]


def test_deadline_of_a_busy_server(lonely: Node) -> None:
    """Signs of life and log lines don't extend it."""

    def busy(connection: Client) -> None:
        welcome(connection)
        for _ in range(200):
            connection.send("log", 1, "info", "busy")
            connection.send("alive", 1)
            time.sleep(0.05)

    with deadline(lonely, 1), fake_server(lonely.run / "probe.sock", busy):
        lonely.perl("return 1").ok()  # loading takes its own time
        started = time.monotonic()
        error = call(lonely, *IDENTITY).error
        assert error == "storage 'p1': get_identity: got timeout after 1 s\n"
        assert time.monotonic() - started < 4


# --- comes and goes ----------------------------------------------------------------------------


@pytest.fixture
def mortal(node: Node) -> Probe:
    """Servers that a test may kill."""
    return Probe(node)


def restart(probe: Probe) -> None:
    probe.server = probe.serve(PROBE)


@pytest.mark.contract("C-025")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_restart_between_calls_is_not_noticed(mortal: Probe, signum: int) -> None:
    for given in (IDENTITY, SNAPSHOT):
        mortal.call(*given).ok()
        mortal.server.stop(signum)
        restart(mortal)
        mortal.call(*given).ok()


def test_restart_leaves_the_callers_errno_alone(mortal: Probe) -> None:
    """The call is sent twice then, and the first attempt ends with a broken pipe."""
    code = """
        my ($class, @args) = @ARGS;
        $! = 5;
        $class->volume_snapshot(@args);
        return $! + 0;
    """
    mortal.call(*SNAPSHOT).ok()
    mortal.server.stop(signal.SIGTERM)
    restart(mortal)
    assert mortal.node.perl(code, "PVE::Storage::Custom::PyBridge::probe", *SNAPSHOT[1:]).ok() == 5


@pytest.mark.contract("C-025")
@pytest.mark.parametrize("method", ["volume_snapshot", "get_identity"])
def test_killed_during_a_call(mortal: Probe, method: str) -> None:
    slow = mortal.fault("hang", "30")
    given = (method, slow, *(SNAPSHOT if method == "volume_snapshot" else IDENTITY)[2:])
    result: list[PerlResult] = []
    mortal.call(*SNAPSHOT).ok()  # starts Perl in this thread
    before = len(mortal.seen(method))
    thread = threading.Thread(target=lambda: result.append(mortal.call(*given)))
    thread.start()
    wait_until(lambda: len(mortal.seen(method)) > before)
    killed = time.monotonic()
    mortal.server.stop(signal.SIGKILL)
    thread.join(10)
    assert time.monotonic() - killed < 2
    if method == "volume_snapshot":
        lost = "the plugin server ended during the call|lost the plugin server: [A-Z][a-z ]+"
        reason = f"volume_snapshot: (?:{lost}), outcome unknown"
    else:  # it is asked again, of a server that isn't there, or no longer
        reason = "plugin server for type 'probe' is not running .*|get_identity: (lost|the) .*"
    assert re.fullmatch(f"storage 'p1': (?:{reason})\n", result[0].error or "")
    restart(mortal)
    assert mortal.call(*IDENTITY).ok() == "identity"


def test_plugin_that_ends_the_server(mortal: Probe) -> None:
    answer = mortal.call("volume_snapshot", mortal.fault("die"), "p1", VOLUME, "s1")
    lost = "storage 'p1': volume_snapshot: the plugin server ended during the call"
    assert answer.error == f"{lost}, outcome unknown\n"
    assert mortal.server.process.wait(5) == 9
