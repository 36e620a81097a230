# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Calls in their short form mean what they mean in the long one, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from author_util import tray
from bridge_util import Node
from probe_util import CALL, Probe, scfg
from pve_pybridge.errors import StorageError
from pve_pybridge.host import Host
from pve_pybridge.loader import load
from pve_pybridge.methods import METHODS, named
from pve_pybridge.recording import Recorded, Recording
from pve_pybridge.section import Section
from pve_pybridge.storage import Call
from wire_util import HELLO, SCFG, Client, fake_server, text

VOLUME = "vm-100-disk-0"
HINTS = {"guest-is-windows": 1}


@pytest.fixture
def client(probe: Probe) -> Iterator[Client]:
    with Client(probe.server.socket) as client:
        yield client


def ask(client: Client, method: str, scfg: object, args: object, meta: object = None) -> Any:
    """A call as the shim sends it, and what came back."""
    client.send("call", 1, method.encode(), b"p1", scfg, args, meta)
    kind, fields = client.answer()
    return fields["value"] if kind == "result" else text(fields["error"]["message"])


def packed(**properties: object) -> bytes:
    data: bytes = msgpack.packb(scfg(**properties))
    return data


ASKED = [
    ("activate_volume", [VOLUME, None, HINTS], {"volname": VOLUME, "hints": HINTS}),
    ("path", [VOLUME, "s1"], {"volname": VOLUME, "snapname": "s1"}),
    ("path", [VOLUME], {"volname": VOLUME}),
    ("path", [VOLUME, None, "of a newer caller"], {"volname": VOLUME}),
    ("path", [], {}),
    ("volume_resize", [VOLUME, "4096", 1], {"volname": VOLUME, "size": 4096, "running": True}),
    ("volume_resize", [VOLUME, "much"], {"volname": VOLUME, "size": "much"}),
    ("volume_snapshot", [5, 1e15], {"volname": "5", "snapname": "1e+15"}),
    ("list_images", [None, []], {"vollist": []}),
    ("volume_polish", ["x"], {"0": "x"}),
]


@pytest.mark.parametrize(("method", "short", "long"), ASKED, ids=lambda it: str(it)[:20])
def test_both_forms_mean_the_same(
    probe: Probe, client: Client, method: str, short: list[object], long: dict[str, object]
) -> None:
    probe.record.unlink(missing_ok=True)
    answers = [ask(client, method, packed(), short), ask(client, method, SCFG, long, {})]
    assert answers[0] == answers[1]
    seen = [entry["args"] for entry in probe.seen(method)]
    assert seen[:1] == seen[1:]


def test_wrong_arguments_are_named(client: Client) -> None:
    assert ask(client, "path", packed(), []) == "path: argument 'volname' is missing"
    error = "volume_resize: argument 'size' must be an integer, not 'much'"
    assert ask(client, "volume_resize", packed(), [VOLUME, "much"]) == error
    error = "path: argument 'volname' must be a string, not a list"
    assert ask(client, "path", packed(), [["a"]]) == error


def test_a_changed_section_counts_at_once(probe: Probe, client: Client) -> None:
    for value in ("a", "b", "b", "a"):
        ask(client, "get_identity", packed(probe_mode="", probe_value=value), [])
        assert probe.last("get_identity")["config"]["value"] == value


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"", "call frame: 'scfg' is no msgpack: Unpack failed: incomplete input"),
        (b"\x81\xa1", "call frame: 'scfg' is no msgpack: Unpack failed: incomplete input"),
        (msgpack.packb([1]), "call frame: 'scfg' must be a map, not a list"),
        (
            msgpack.packb({1.5: {"a": []}}),
            "call frame: 'scfg' is no msgpack: float is not allowed for map key "
            "when strict_map_key=True",
        ),
    ],
)
def test_a_section_that_is_none(client: Client, data: bytes, flaw: str) -> None:
    client.send("call", 1, b"path", b"p1", data, [VOLUME], None)
    assert client.refused() == flaw


def test_an_operation_is_the_callers_own(probe: Probe) -> None:
    """Two processes may have their caches at the same address."""
    for pid in (7, 8):
        with Client(probe.server.socket, {**HELLO, "pid": pid}) as client:
            ask(client, "activate_volume", packed(), [VOLUME, None, {}], 4711)
            ask(client, "activate_volume", packed(), [VOLUME, None, {}], {"operation": "x"})
    entries = [entry["operation"] for entry in probe.seen("activate_volume")[-4:]]
    assert entries == ["7-4711", "x", "8-4711", "x"]


def test_names_for_traces() -> None:
    assert named("path", ["a", None]) == {"volname": "a"}
    assert named("path", {"volname": "a"}) == {"volname": "a"}
    assert named("nonsense", ["a", "b"]) == {"0": "a", "1": "b"}
    for row in METHODS.values():
        values = list(range(len(row.wire_args)))
        assert list(named(row.name, values)) == [arg.name for arg in row.wire_args]


def test_a_recording_answers_both() -> None:
    record = {"type": "probe", "method": "path", "storeid": "p1", "args": {"volname": "a"}}
    recorded = Recorded(Recording({}, [{**record, "result": "/a"}]))
    for args in ([b"a"], {b"volname": b"a"}):
        assert recorded.call(Call(method="path"), "p1", {}, args)[0] == "/a"
    with pytest.raises(StorageError, match="has no such path"):
        recorded.call(Call(method="path"), "p1", {}, [b"b"])


def test_a_section_serves_more_than_one_host(node: Node) -> None:
    """``serve --reload`` makes a new host, whose configuration may be of another class."""
    section = Section(b"p1", msgpack.packb({"type": "tray", "tray-folder": str(node.base)}))
    plugin = tray(node)
    owners, classes = [], []
    for host in [Host(load(str(plugin))) for _ in range(2)]:
        host.call(Call(method="status"), "p1", section, [])
        owners.append(section.typed[0])
        classes.append(type(section.typed[1]))
    assert owners[0] is not owners[1]
    assert classes[0] is not classes[1]


# --- the shim ----------------------------------------------------------------------------------


def test_the_shim_takes_it_from_the_first_call_on(node: Node) -> None:
    """With the caller's alarm, more is said of a call; its other fields stay as they are."""
    forms = []

    def behave(connection: Client) -> None:
        connection.send("welcome", {"wire": 1, "table": 1, "type": "probe", "pid": 1})
        for number in (1, 2, 3):
            call = connection.first if number == 1 else connection.receive()[1]
            forms.append((type(call["scfg"]), type(call["args"]), call["meta"]))
            connection.send("result", number, "id", {})

    Probe(node).server.stop()
    code = """
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        my @answers = map { $class->get_identity($ARGS[0], 'p1') } 1 .. 2;
        alarm(100);
        push @answers, $class->get_identity($ARGS[0], 'p1');
        alarm(0);
        return [@answers];
    """
    with fake_server(node.run / "probe.sock", behave):
        assert node.perl(code, scfg()).ok() == ["id"] * 3
    assert forms[:2] == [(bytes, list, None)] * 2
    assert forms[2][:2] == (bytes, list)
    assert 99 < forms[2][2].pop(b"remaining") <= 100
    assert forms[2][2] == {b"operation": None}


ODD = """
    require JSON;
    my $scfg = { type => 'probe', content => { images => 1 }, 'probe-eager' => JSON::true() };
    my $hints = { 'guest-is-windows' => JSON::true(), code => sub { 1 }, odd => \\*STDIN };
    my $class = 'PVE::Storage::Custom::PyBridge::probe';
    $class->activate_volume('p1', $scfg, 'vm-100-disk-0', undef, {}, $hints) for 1 .. 2;
    return 1;
"""


def test_what_cannot_cross_is_left_out(probe: Probe) -> None:
    """In both forms: JSON's booleans become numbers, code and handles stay at home."""
    probe.node.perl(ODD).ok()
    for entry in probe.seen("activate_volume")[-2:]:
        assert entry["args"]["hints"]["given"] == {"guest-is-windows": 1}
        assert entry["config"]["eager"] is True


@pytest.mark.parametrize("sub", ["section({})", "encode(['call'])"])
def test_a_signal_while_packing_ends_the_call(probe: Probe, sub: str) -> None:
    """Its handler may die just there; to pack again would go on as if nothing had come."""
    code = f"""
        require PVE::Storage::PyBridge::Codec;
        no warnings 'redefine';
        my ($pack, $times) = (\\&Data::MessagePack::pack, 0);
        local *Data::MessagePack::pack = sub {{ die "got TERM\\n" if !$times++; goto &$pack; }};
        PVE::Storage::PyBridge::Codec::{sub};
    """
    assert probe.node.perl(code).error == "got TERM\n"


def test_a_hash_that_changes_between_calls(probe: Probe) -> None:
    """A section is known by its content, not by where it is."""
    code = """
        my $scfg = $ARGS[0];
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        for my $value (qw(a b b c)) {
            $scfg->{'probe-value'} = $value;
            $class->get_identity($scfg, 'p1');
        }
        return 1;
    """
    probe.node.perl(code, scfg(probe_mode="")).ok()
    values = [entry["config"]["value"] for entry in probe.seen("get_identity")[-4:]]
    assert values == ["a", "b", "b", "c"]


def test_a_trace_has_names(probe: Probe) -> None:
    """Whatever the form, a record shows the arguments by name."""
    for _ in range(2):  # the second one is short
        probe.node.perl(CALL, "probe", "path", scfg(), VOLUME, "p1").ok()
    calls = [entry for entry in probe.server.calls() if entry["method"] == "path"][-2:]
    assert [entry["args"] for entry in calls] == [{"volname": VOLUME}] * 2
    assert [entry["scfg"] for entry in calls] == [scfg()] * 2
