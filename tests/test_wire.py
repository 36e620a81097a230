# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames: the codec by itself, and a real server that meets clients which don't keep to them."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe_util import Probe, wait_until
from pve_pybridge import codec
from pve_pybridge.errors import ProtocolError
from pve_pybridge.version import __version__
from wire_util import HELLO, SCFG, Client

# --- the codec ---------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False),
    TEXTS,
    st.binary(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
MAPS = st.dictionaries(TEXTS, VALUES, max_size=4)
STRINGS = st.one_of(TEXTS, st.binary(max_size=20))
OF_TYPE = {
    "id": st.integers(0, 1 << 40),
    "about": MAPS,
    "method": STRINGS,
    "storeid": STRINGS,
    "level": STRINGS,
    "message": STRINGS,
    "scfg": st.one_of(st.none(), MAPS),
    "args": MAPS,
    "meta": MAPS,
    "extra": MAPS,
    "error": MAPS,
    "value": VALUES,
    "rows": st.lists(VALUES, max_size=4),
}
KINDS = st.sampled_from(sorted(codec.FIELDS))
MESSAGES = KINDS.flatmap(
    lambda kind: st.tuples(st.just(kind), *(OF_TYPE[name] for name in codec.FIELDS[kind]))
)


@given(MESSAGES)
def test_round_trip(message: tuple[Any, ...]) -> None:
    frame = codec.encode(*message)
    assert codec.decode_length(frame[:4]) == len(frame) - 4
    found = codec.decode(frame[4:])
    assert tuple(found) == message
    assert codec.named(found) == dict(zip(codec.FIELDS[message[0]], message[1:], strict=True))


@given(MESSAGES, st.data())
def test_truncated(message: tuple[Any, ...], data: st.DataObject) -> None:
    payload = codec.encode(*message)[4:]
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ProtocolError, match=r"\Aframe is no msgpack: .+"):
        codec.decode(payload[:cut])


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_a_message(payload: bytes) -> None:
    try:
        kind, *fields = codec.decode(payload)
    except ProtocolError as err:
        words = str(err).splitlines()
    else:
        words = [kind]
        assert len(fields) == len(codec.FIELDS[kind])
    assert len(words) == 1


@given(MESSAGES, st.lists(VALUES, min_size=1, max_size=3))
def test_surplus_fields_are_ignored(message: tuple[Any, ...], more: list[Any]) -> None:
    assert codec.decode(codec.encode(*message, *more)[4:]) == codec.decode(
        codec.encode(*message)[4:]
    )


@given(st.binary(max_size=30))
def test_any_bytes_survive_as_text(data: bytes) -> None:
    """Bytes that are no UTF-8 are surrogates in Python; they leave as the same bytes."""
    message = codec.encode("log", 1, "info", data.decode("utf-8", "surrogateescape"))[4:]
    value = codec.decode(message)[3]
    assert value.encode("utf-8", "surrogateescape") == data


MALFORMED = [
    (b"", "frame is no msgpack: Unpack failed: incomplete input"),
    (b"\xc1", "frame is no msgpack: FormatError"),
    (b"\x80", "frame is no array that starts with its kind"),
    (b"\x90", "frame is no array that starts with its kind"),
    (b"\x91\x01", "frame is no array that starts with its kind"),
    (b"\x91\xa6result\xc0", "frame is no msgpack: unpack(b) received extra data."),
    (
        msgpack.packb(["call", 1, "path", "p", {1: 2}, {}, {}]),
        "frame is no msgpack: int is not allowed for map key when strict_map_key=True",
    ),
    (
        b"\x92\xa5hello\x81\x90\x01",
        "frame is no msgpack: list is not allowed for map key when strict_map_key=True",
    ),
    (b"\x91" * 2000, "frame is no msgpack: StackError"),
    (msgpack.packb(["goodbye"]), "unknown kind of frame 'goodbye'"),
    (msgpack.packb(["x" * 50]), f"unknown kind of frame {'x' * 40!r}"),
    (msgpack.packb(["call", 1]), "call frame lacks 'method'"),
    (msgpack.packb(["call", 1, "path", "p", {}, {}]), "call frame lacks 'meta'"),
    (msgpack.packb(["hello"]), "hello frame lacks 'about'"),
    (msgpack.packb(["hello", [1]]), "hello frame: 'about' is list"),
    (msgpack.packb(["call", "1", "path", "p", {}, {}, {}]), "call frame: 'id' is str"),
    (msgpack.packb(["call", 1, 5, "p", {}, {}, {}]), "call frame: 'method' is int"),
    (msgpack.packb(["call", 1, "path", None, {}, {}, {}]), "call frame: 'storeid' is NoneType"),
    (msgpack.packb(["call", 1, "path", "p", [], {}, {}]), "call frame: 'scfg' is list"),
    (msgpack.packb(["call", 1, "path", "p", {}, "x", {}]), "call frame: 'args' is str"),
    (msgpack.packb(["call", 1, "path", "p", {}, {}, 1.5]), "call frame: 'meta' is float"),
    (msgpack.packb(["result", 1, None, None]), "result frame: 'extra' is NoneType"),
    (msgpack.packb(["error", 1, "text"]), "error frame: 'error' is str"),
]


@pytest.mark.parametrize(("payload", "message"), MALFORMED, ids=[text for _, text in MALFORMED])
def test_malformed(payload: bytes, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(payload)
    assert str(caught.value) == message


def test_too_long() -> None:
    limit = 64 << 20
    assert codec.decode_length(codec.HEADER.pack(limit)) == limit
    with pytest.raises(ProtocolError) as caught:
        codec.decode_length(codec.HEADER.pack(limit + 1))
    assert str(caught.value) == "frame of 67108865 bytes exceeds the limit of 67108864"
    with pytest.raises(ProtocolError) as caught:
        codec.encode("log", 1, "info", "x" * limit)
    assert str(caught.value) == "log frame of 67108880 bytes exceeds the limit of 67108864"


# --- a real server, clients that don't behave --------------------------------------------------

CALL: tuple[Any, ...] = (
    "call",
    1,
    "path",
    "p1",
    SCFG,
    {"volname": "vm-100-disk-0", "snapname": None},
    {},
)


def test_byte_by_byte(probe: Probe) -> None:
    with Client(probe.server.socket, hello=None) as client:
        for byte in codec.encode("hello", HELLO) + codec.encode(*CALL):
            client.socket.send(bytes([byte]))
        assert client.receive()[0] == "welcome"
        kind, fields = client.receive()
        assert kind == "result"
        assert fields["value"] == [f"{probe.node.run}/vm-100-disk-0@", 100, "images"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 200), max_size=6))
def test_split_anywhere(probe: Probe, pieces: list[int]) -> None:
    data = codec.encode("hello", HELLO) + codec.encode(*CALL)
    with Client(probe.server.socket, hello=None) as client:
        for piece in pieces:
            client.socket.sendall(data[:piece])
            data = data[piece:]
        client.socket.sendall(data)
        assert [client.receive()[0] for _ in range(2)] == ["welcome", "result"]


def test_welcome_says_who_it_is(probe: Probe) -> None:
    with Client(probe.server.socket, hello=None) as client:
        client.send("hello", {**HELLO, "surplus": [1]}, "surplus")
        kind, fields = client.receive()
        about = {"wire": 1, "table": 1, "version": __version__, "type": "probe"}
        about |= {"pid": probe.server.process.pid}
        assert (kind, fields["about"]) == ("welcome", about)


REFUSED = [
    (
        [("hello", {**HELLO, "wire": 2})],
        "the shim speaks wire version 2, this plugin server 1: install the same release of both "
        "and restart the older one",
    ),
    (
        [("hello", {"type": "probe"})],
        "the shim speaks wire version None, this plugin server 1: install the same release of both "
        "and restart the older one",
    ),
    ([("hello", {**HELLO, "type": "other"})], "this server is for type 'probe', not 'other'"),
    ([("hello", {**HELLO, "pid": "new"})], "hello frame: 'pid' must be an integer, not 'new'"),
    ([("hello", {**HELLO, "hints": 5})], "hello frame: 'hints' must be a list, not a number"),
    ([CALL], "expected hello, got call"),
    ([("cancel", 1)], "expected hello, got cancel"),
    ([("welcome", {})], "expected hello, got welcome"),
    ([("hello", HELLO), ("hello", HELLO)], "expected call, got hello"),
    ([("hello", HELLO), ("result", 1, None, {})], "expected call, got result"),
    ([("hello", HELLO), ("goodbye",)], "unknown kind of frame 'goodbye'"),
    ([("hello", HELLO), ("call", 1)], "call frame lacks 'method'"),
    ([("hello", HELLO), ("call", "one", *CALL[2:])], "call frame: 'id' is str"),
]


@pytest.mark.parametrize(("messages", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_refused(probe: Probe, messages: list[tuple[Any, ...]], reason: str) -> None:
    """One clear sentence, then the connection is closed; the server goes on."""
    with Client(probe.server.socket, hello=None) as client:
        for message in messages:
            client.send(*message)
        if len(messages) > 1:
            assert client.receive()[0] == "welcome"
        assert client.refused() == reason
    assert reason in probe.server.log.read_text()
    with Client(probe.server.socket) as client:
        assert client.call("path", volname="vm-1-disk-0")[0] == "result"


def test_oversized_frame_is_refused_before_it_is_read(probe: Probe) -> None:
    with Client(probe.server.socket) as client:
        client.socket.sendall(codec.HEADER.pack((64 << 20) + 1))
        assert client.refused() == "frame of 67108865 bytes exceeds the limit of 67108864"


def test_deeply_nested_arguments(probe: Probe) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    with Client(probe.server.socket) as client:
        kind, fields = client.call("path", volname=deep)
        assert kind == "error"
        message = "path: argument 'volname' must be a string, not a list"
        assert fields["error"] == {"kind": "user", "message": message}
        assert client.call("path", volname="vm-1-disk-0")[0] == "result"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\x09", b"\0\0\0\x09\x92\xa5hel"])
def test_hanging_up_early_is_no_news(probe: Probe, data: bytes) -> None:
    before = probe.server.log.read_text()
    with Client(probe.server.socket, hello=None) as client:
        client.socket.sendall(data)
    with Client(probe.server.socket) as client:
        assert client.call("path", volname="vm-1-disk-0")[0] == "result"
    assert probe.server.log.read_text() == before


def test_many_calls_on_one_connection(probe: Probe) -> None:
    with Client(probe.server.socket) as client:
        for number in (1, 2, 2, 99, 0):
            name = f"vm-{number}-disk-0"
            kind, fields = client.call("path", number, volname=name)
            assert (kind, fields["id"]) == ("result", number)
            assert fields["value"][1] == number
            kind, fields = client.call("path", number, {**SCFG, "probe-mode": "user"}, volname=name)
            assert (kind, fields["id"]) == ("error", number)


def test_surplus_fields_of_a_call_are_ignored(probe: Probe) -> None:
    """A newer shim may send more than we know (C-033, D8)."""
    with Client(probe.server.socket) as client:
        args = {"volname": "vm-1-disk-0", "new": {"deep": [1]}}
        client.send("call", 1, "path", "p1", SCFG, args, {"new": 1}, "surplus", None)
        assert client.answer()[0] == "result"
        assert "new" not in probe.last("path")["args"]


def test_unknown_method_and_section(probe: Probe) -> None:
    with Client(probe.server.socket) as client:
        _, fields = client.call("format_disk")
        assert fields["error"] == {"kind": "user", "message": "unknown method 'format_disk'"}
        kind, _ = client.call("path", scfg=None, volname="vm-1-disk-0")
        assert kind == "result"


# --- file descriptors --------------------------------------------------------------------------


def test_descriptor_announced_but_not_sent(probe: Probe) -> None:
    args = {"volname": "vm-100-disk-0", "format": "raw+size"}
    with Client(probe.server.socket) as client:
        client.send("call", 1, "volume_export", "p1", SCFG, args, {"fd": 1})
        assert client.receive()[0] == "alive"
        client.send(*CALL)  # whatever comes next is taken for it
        reason = "call announces a file descriptor, but none came with it"
        assert client.refused() == reason
    with Client(probe.server.socket) as client:
        client.send("call", 1, "volume_export", "p1", SCFG, args, {"fd": 1})
    assert not [entry for entry in probe.seen("volume_export") if entry["storeid"] == "p1"]


def test_descriptor_is_closed_after_the_call(probe: Probe) -> None:
    args = {"volname": "vm-100-disk-0", "format": "raw+size"}
    reader, writer = os.pipe()
    with Client(probe.server.socket) as client, open(reader, "rb") as stream:
        client.send("call", 1, "volume_export", "p2", SCFG, args, {"fd": 1})
        assert client.receive()[0] == "alive"
        socket.send_fds(client.socket, [b"\0"], [writer])
        os.close(writer)
        assert client.answer()[0] == "result"
        # the connection is still open, but the pipe has its end
        assert stream.read() == (16).to_bytes(8, "little") + b"p2:vm-100-disk-0"


# --- during a call -----------------------------------------------------------------------------


def start_sleeping(client: Client, probe: Probe, number: int, seconds: str, mode: str) -> None:
    probe.record.unlink(missing_ok=True)
    section = {**SCFG, "probe-mode": mode, "probe-value": seconds}
    args = {"volname": "vm-100-disk-0"}
    client.send("call", number, "activate_volume", "p1", section, args, {})
    wait_until(lambda: bool(probe.seen("activate_volume")))


@pytest.mark.contract("C-023")
@pytest.mark.parametrize("how", ["hang up", "cancel frame"])
def test_caller_loses_interest(probe: Probe, how: str) -> None:
    with Client(probe.server.socket) as client:
        start_sleeping(client, probe, 7, "30", "sleep")
        started = time.monotonic()
        if how == "hang up":
            client.socket.close()
        else:
            client.send("cancel", 7)
            kind, fields = client.answer()
            message = "activate_volume: cancelled, because its caller went away"
            assert (kind, fields["error"]) == ("error", {"kind": "cancelled", "message": message})
            assert client.call("path", 8, volname="vm-1-disk-0")[0] == "result"
        assert probe.wait_for("woken")["args"] == {"by": "Cancelled"}
        assert time.monotonic() - started < 3


@pytest.mark.contract("C-023")
def test_command_ends_with_its_call(probe: Probe) -> None:
    with Client(probe.server.socket) as client:
        start_sleeping(client, probe, 1, "31.4159", "hold")
        wait_until(lambda: _running("31.4159"))
    started = time.monotonic()
    assert probe.wait_for("undone")
    assert time.monotonic() - started < 5
    assert not _running("31.4159")


def _running(argument: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes() == f"sleep\0{argument}\0".encode():
                return True
        except OSError:
            continue
    return False


def test_long_call_shows_life(probe: Probe) -> None:
    """Every five seconds; a blocking plugin doesn't stop it."""
    with Client(probe.server.socket) as client:
        start_sleeping(client, probe, 5, "6", "hang")
        started = time.monotonic()
        assert client.receive() == ("alive", {"id": 5})
        assert 4 < time.monotonic() - started < 6
        assert client.receive()[0] == "result"
