# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Long lists of volumes come in parts: whole, in order, or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge_util import Node
from probe_util import CALL, enable_both, scfg, wait_until
from pve_pybridge import Volume, codec
from pve_pybridge.results import ROWS_OF_PART, volumes
from wire_util import HELLO, Behaviour, Client, after_welcome, fake_server, frame, welcome

PLUGIN = """
    import time
    from pve_pybridge import Status, Storage, StorageConfig, StoragePlugin, Volume

    class Many(StoragePlugin[StorageConfig]):
        type = "many"

        def path(self, storage: Storage, volname: str, snapname: str) -> str:
            return volname

        def status(self, storage: Storage) -> Status:
            return Status(3, 2, 1)

        def list_images(self, storage: Storage, vmid: int, vollist: list) -> list:
            found = [
                Volume(
                    volname=f"vm-{n}-ü" if n % 997 == 996 else f"vm-{n}-a",
                    format="raw",
                    size=None if n % 5 else n << 22,
                    parent="base-1-a" if n % 700 == 3 else None,
                    notes="nöte" if n % 900 == 5 else None,
                    protected=True if n % 800 == 7 else None,
                )
                for n in range(vmid)
            ]
            if vollist:
                found.insert(int(vollist[0].split(":")[1]), "no volume")
            return found
"""
LIST = "return PVE::Storage::Custom::PyBridge::many->list_images('m1', {type => 'many'}, @ARGS);"
PARTS = {**HELLO, "type": "many", "parts": 1}


def expected(count: int) -> list[dict[str, Any]]:
    """The rows that PVE gets."""
    rows = []
    for n in range(count):
        name = "ü" if n % 997 == 996 else "a"
        row: dict[str, Any] = {"volid": f"m1:vm-{n}-{name}", "format": "raw"}
        row |= {} if n % 5 else {"size": n << 22}
        row |= {"parent": "base-1-a"} if n % 700 == 3 else {}
        row |= {"notes": "nöte"} if n % 900 == 5 else {}
        rows.append(row | ({"protected": 1} if n % 800 == 7 else {}))
    return rows


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("many")) as node:
        plugin = node.plugin("many", PLUGIN)
        node.enable(plugin)
        node.serve(plugin)
        yield node


COUNTS = [0, 1, ROWS_OF_PART, ROWS_OF_PART + 1, 5000]


@pytest.mark.parametrize("count", COUNTS)
def test_shim_gets_all_rows_in_order(many: Node, count: int) -> None:
    assert many.perl(LIST, count, None).ok() == expected(count)


def messages(node: Node, hello: dict[str, Any], count: int, *given: str) -> list[Any]:
    with Client(node.run / "many.sock", hello) as client:
        args = {"vmid": count, "vollist": list(given) or None}
        client.send("call", 1, "list_images", "m1", {"type": "many"}, args, {})
        found = [client.receive()]
        while found[-1][0] not in ("result", "error"):
            found.append(client.receive())
        return found


@pytest.mark.parametrize("count", COUNTS)
def test_parts_only_for_who_takes_them(many: Node, count: int) -> None:
    (whole,) = messages(many, {**HELLO, "type": "many"}, count)
    *parts, last = messages(many, PARTS, count)
    assert {kind for kind, _ in parts} <= {"part"}
    rows = [row for _, fields in parts for row in fields["rows"]] + last[1]["value"]
    assert rows == whole[1]["value"]
    assert len(rows) == count
    assert len(parts) == max(0, count - 1) // ROWS_OF_PART


def test_trace_has_all_rows(node: Node) -> None:
    server = node.serve(node.plugin("many", PLUGIN))  # traced, as all servers of the tests
    *parts, _ = messages(node, PARTS, 2000)
    assert len(parts) == 1999 // ROWS_OF_PART
    wait_until(lambda: bool(server.calls("list_images")))
    assert server.calls("list_images")[0]["result"] == expected(2000)


def test_reader_that_stops_keeps_nobody_waiting(node: Node) -> None:
    """It has its list half; a plugin that takes one call at a time serves the next one."""
    serial = PLUGIN.replace('type = "many"', 'type = "many"\n        concurrency = "serial"')
    node.serve(node.plugin("many", serial))
    path = node.run / "many.sock"
    with Client(path, PARTS) as stopped, Client(path, PARTS, timeout=10) as other:
        stopped.send("call", 1, "list_images", "m1", {"type": "many"}, {"vmid": 50_000}, {})
        while stopped.receive()[0] != "part":
            pass
        started = time.monotonic()
        other.send("call", 1, "path", "m1", {"type": "many"}, {"volname": "vm-1-a"}, {})
        assert other.answer()[0] == "result"
        assert time.monotonic() - started < 20, "it waited until the list was given up"


@pytest.mark.parametrize("place", [0, 1500])
def test_error_in_the_middle(many: Node, place: int) -> None:
    """Not an empty list, not half a list: the error, and the connection goes on."""
    answer = many.perl(LIST, 2000, [f"m1:{place}"])
    said = "list_images: its answer must be a list of Volume, but holds str"
    assert said in (answer.error or "")
    assert many.perl(LIST, 2000, None).ok() == expected(2000)
    *parts, last = messages(many, PARTS, 2000, f"m1:{place}")
    assert last[0] == "error"
    assert len(parts) == place // ROWS_OF_PART


def test_caller_that_goes_away(many: Node) -> None:
    """The server notices at the next part, and it isn't called a bug of the plugin."""
    with Client(many.run / "many.sock", PARTS) as client:
        client.send("call", 1, "list_images", "m1", {"type": "many"}, {"vmid": 50_000}, {})
        while client.receive()[0] != "part":
            pass
    time.sleep(0.1)
    assert many.perl(LIST, 600, None).ok() == expected(600)
    with Client(many.run / "many.sock", PARTS) as client:
        client.send("call", 1, "_stats", "", {}, {}, {})
        counts = client.answer()[1]["value"]
    assert counts["running"] == []


def test_rows_never_exist_all_at_once() -> None:
    held: list[int] = []
    some = [Volume(volname=f"v{n}", format="raw") for n in range(3 * ROWS_OF_PART)]
    rest = volumes(some, "s", lambda rows: held.append(len(rows)))
    assert [*held, len(rest)] == [ROWS_OF_PART] * 3


# --- a server that doesn't keep to it ------------------------------------------------------------

ROWS = [{"volid": "p1:x"}]
PART = frame("part", 1, ROWS)
WRONG = [
    ("not a list", after_welcome(frame("part", 1, {})), "malformed 'part' from the plugin server"),
    (
        "another's",
        after_welcome(frame("part", 2, ROWS)),
        "unexpected 'part' from the plugin server",
    ),
    (
        "no list at the end",
        after_welcome(PART + frame("result", 1, {}, {})),
        "malformed 'result' from the plugin server",
    ),
    (
        "nothing at the end",
        after_welcome(PART + frame("result", 1, None, {})),
        "malformed 'result' from the plugin server",
    ),
    ("no end", after_welcome(PART * 3), "the plugin server ended during the call"),
    (
        "without end",
        after_welcome(codec.encode("part", 1, ["x" * (1 << 20)]) * 65, linger=20),
        "answer of 67109952 bytes exceeds the limit of 67108864",
    ),
]


@pytest.mark.parametrize(
    ("behaviour", "reason"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_broken_parts(node: Node, behaviour: Behaviour, reason: str) -> None:
    enable_both(node)
    with fake_server(node.run / "probe.sock", behaviour, behaviour):
        answer = node.perl(CALL, "probe", "list_images", "p1", scfg(), None, None, {})
        assert answer.error == f"storage 'p1': list_images: {reason}\n"


def test_retry_forgets_the_first_half(node: Node) -> None:
    enable_both(node)
    whole = after_welcome(PART + frame("result", 1, ROWS, {}), linger=5)

    def dies_later(connection: Client) -> None:
        welcome(connection)
        connection.socket.sendall(PART + frame("result", 1, ROWS, {}))
        connection.receive()
        connection.socket.sendall(frame("part", 2, ROWS))

    code = """
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        return [map { scalar($class->list_images('p1', $ARGS[0], undef, undef, {})->@*) } 1, 2];
    """
    with fake_server(node.run / "probe.sock", dies_later, whole) as called:
        assert node.perl(code, scfg()).ok() == [2, 2]
        assert called == ["list_images", "list_images"]
