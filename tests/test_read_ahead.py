# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A server that reads whatever is there loses nothing, descriptors least of all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bridge_util import Node
from probe_util import Probe, enable_both, scfg
from pve_pybridge import codec
from wire_util import SCFG, Behaviour, Client, fake_server, text, welcome

EXPORT = ("volume_export", "p2", SCFG, {"volname": "vm-100-disk-0", "format": "raw+size"})
STREAM = (16).to_bytes(8, "little") + b"p2:vm-100-disk-0"


@pytest.fixture
def client(probe: Probe) -> Iterator[Client]:
    with Client(probe.server.socket) as client:
        yield client


def call(number: int, volname: str) -> bytes:
    return codec.encode("call", number, "path", "p1", SCFG, {"volname": volname}, {})


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 60])
def test_calls_in_pieces_and_in_heaps(client: Client, cut: int) -> None:
    calls = b"".join(call(number, f"vm-{number}-disk-0") for number in range(1, 40))
    long = call(40, "vm-40-disk-0" + "x" * 9000)
    data = calls + long + call(41, "vm-41-disk-0")
    client.socket.sendall(data[:cut])
    client.socket.sendall(data[cut:-cut])
    client.socket.sendall(data[-cut:])
    for number in range(1, 42):
        kind, fields = client.answer()
        assert (kind, fields["id"]) == ("result", number)
        if number != 40:
            assert fields["value"][1] == number


def test_a_descriptor_is_asked_for(client: Client) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as stream:
        client.send("call", 7, *EXPORT, {"fd": 1})
        assert client.receive() == ("alive", {"id": 7})
        socket.send_fds(client.socket, [b"\0"], [writer])
        os.close(writer)
        assert client.answer()[0] == "result"
        assert stream.read() == STREAM
    client.socket.sendall(call(8, "vm-8-disk-0"))
    assert client.answer()[1]["id"] == 8


def test_what_follows_instead_of_a_descriptor_is_refused(client: Client) -> None:
    client.socket.sendall(codec.encode("call", 1, *EXPORT, {"fd": 1}) + call(2, "vm-2-disk-0"))
    assert client.refused() == "call announces a file descriptor, but something else follows"


def test_a_caller_that_leaves_instead(probe: Probe) -> None:
    before = len(probe.seen("volume_export"))
    with Client(probe.server.socket) as client:
        client.send("call", 1, *EXPORT, {"fd": 1})
        assert client.receive()[0] == "alive"
    with Client(probe.server.socket) as client:
        client.socket.sendall(call(1, "vm-1-disk-0"))
        assert client.answer()[0] == "result"
    assert len(probe.seen("volume_export")) == before


# --- the shim ----------------------------------------------------------------------------------

PERL = """
    pipe(my $in, my $out) or die;
    eval {
        PVE::Storage::Custom::PyBridge::probe->volume_export(
            $ARGS[0], 'p1', $out, 'vm-1-disk-0', 'raw+size', undef, undef, 0);
    };
    my $error = $@;
    close($out);
    sysread($in, my $got, 100);
    return [$error, $got // ''];
"""


def exporting(before: tuple[Any, ...], *, take: bool = True) -> Behaviour:
    """A server which sends something before it takes the descriptor."""

    def behave(connection: Client) -> None:
        welcome(connection)
        connection.send(*before)
        if take:
            _, descriptors, _, _ = socket.recv_fds(connection.socket, 1, 1)
            os.write(descriptors[0], b"here")
            os.close(descriptors[0])
            connection.send("result", 1, None, {})

    return behave


FAILURE = {"kind": "user", "message": "too many callers"}
SERVERS = [
    (exporting(("alive", 1)), ["", "here"]),
    (exporting(("error", 1, FAILURE), take=False), ["too many callers\n", ""]),
    (
        exporting(("result", 1, None, {}), take=False),
        [
            "storage 'p1': volume_export: unexpected 'result' from the plugin server, "
            "outcome unknown\n",
            "",
        ],
    ),
]


@pytest.mark.parametrize(("server", "expected"), SERVERS, ids=["asks", "fails", "mad"])
def test_the_shim_hands_it_over(node: Node, server: Behaviour, expected: list[str]) -> None:
    """When it is asked, unless the call ends before."""
    enable_both(node)
    with fake_server(node.run / "probe.sock", server) as called:
        assert [text(one) for one in node.perl(PERL, scfg()).ok()] == expected
        assert called == ["volume_export"]
