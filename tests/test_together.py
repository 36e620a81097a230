# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What PVE asks in a row crosses the socket in one message, and means the same as one by one."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from bridge_util import Node
from wire_util import Client

ROW: Final = ["check_connection", "activate_storage", "status"]
PLUGIN: Final = """
import json, os, time
from pathlib import Path
from pve_pybridge import Status, StorageConfig, StorageError, StoragePlugin

HERE = Path(__file__).parent

class Row(StoragePlugin[StorageConfig]):
    type = "row"
    deadlines = {"status": 1.0}

    def note(self, storage, method):
        with (HERE / "seen").open("a") as file:
            left = storage.deadline and storage.deadline - time.monotonic()
            entry = [method, storage.storeid, storage.call.operation, storage.host.pid, left]
            file.write(json.dumps(entry) + chr(10))
        fault = (HERE / "fault").read_text() if (HERE / "fault").exists() else ""
        name, _, what = fault.partition("=")
        if name == method and what == "raise":
            raise StorageError(f"{method} is broken")
        if name == method and what == "log":
            storage.log(f"{method} says hello")
        if name == method and what in ("hang", "slow"):
            time.sleep({"hang": 4, "slow": 1.5}[what])
        return not (name == method and what == "no")

    def check_connection(self, storage):
        return self.note(storage, "check_connection")

    def activate_storage(self, storage):
        self.note(storage, "activate_storage")

    def status(self, storage):
        self.note(storage, "status")
        return Status(total=10 << 30, avail=7 << 30, used=3 << 30)

    def path(self, storage, volname, snapname):
        return "/dev/null"

    def list_images(self, storage, vmid, vollist):
        return []
"""
COUNTED: Final = """
    require PVE::Storage::PyBridge::Client;
    my ($exchange, $count) = (\\&PVE::Storage::PyBridge::Client::exchange, 0);
    local *PVE::Storage::PyBridge::Client::exchange = sub { $count++; goto &$exchange; };
"""
INFO: Final = (
    COUNTED
    + """
    my $cfg = PVE::Storage::config();
    my $info = PVE::Storage::storage_info($cfg);
    return [$count, $info->{r1}->@{qw(active total used avail)}];
"""
)
FIGURES: Final = [1, 10 << 30, 3 << 30, 7 << 30]


class Scene:
    """A node with one storage of the plugin."""

    def __init__(self, node: Node):
        plugin = node.base / "row.py"
        plugin.write_text(PLUGIN)
        self.node = node
        self.server = node.serve(plugin)
        node.add("r1", "row", content="images")
        self._seen = node.base / "seen"
        self._fault = node.base / "fault"

    def fault(self, text: str) -> None:
        self._fault.write_text(text)

    def info(self) -> Any:
        """Messages sent, and what storage_info says."""
        return self.node.perl(INFO)

    def seen(self) -> list[list[Any]]:
        """Calls since the last question."""
        text = self._seen.read_text() if self._seen.exists() else ""
        self._seen.unlink(missing_ok=True)
        return [json.loads(line) for line in text.splitlines()]

    def methods(self) -> list[str]:
        return [entry[0] for entry in self.seen()]


@pytest.fixture
def scene(node: Node) -> Scene:
    return Scene(node)


@pytest.fixture
def known(scene: Scene) -> Scene:
    """The Perl process has a connection already."""
    scene.info().ok()
    scene.seen()
    return scene


def test_one_message_for_all_three(scene: Scene) -> None:
    for _ in range(3):
        assert scene.info().ok() == [1, *FIGURES]
    seen = scene.seen()
    assert [entry[0] for entry in seen] == ROW * 3
    operations = [entry[2] for entry in seen]
    assert len({*operations[:3]}) == 1, "also check_connection knows whose part it is"
    assert all(operations)


def test_activation_alone_asks_for_no_status(known: Scene) -> None:
    code = (
        COUNTED
        + "PVE::Storage::activate_storage(PVE::Storage::config(), 'r1', $ARGS[0]); return $count;"
    )
    caches: list[object] = [{}, None]
    for cache in caches:
        assert known.node.perl(code, cache).ok() == 1
        assert known.methods() == ROW[:2]


def test_who_asks_by_itself_is_answered_by_itself(known: Scene) -> None:
    code = """
        my $class = PVE::Storage::Plugin->lookup('row');
        my $scfg = PVE::Storage::config()->{ids}->{r1};
        my $cache = {};
        return [
            $class->check_connection('r1', $scfg),
            $class->activate_storage('r1', $scfg, $cache),
            ($class->status('r1', $scfg, $cache))[0],
        ];
    """
    assert known.node.perl(code).ok() == [1, 10 << 30]
    assert known.methods() == ROW
    known.fault("check_connection=no")
    assert known.node.perl(code).ok()[0] == 0


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("fault", "said", "asked"),
    [
        ("check_connection=no", "storage 'r1' is not online\n", 1),
        (
            "check_connection=raise",
            "connection check for storage 'r1' failed - check_connection is broken\n\n",
            1,
        ),
        ("activate_storage=raise", "activate_storage is broken\n", 2),
        ("status=raise", "status is broken\n", 3),
    ],
)
def test_what_fails_ends_the_row(
    scene: Scene, fresh: bool, fault: str, said: str, asked: int
) -> None:
    """Same words and same consequences as one by one."""
    if not fresh:
        scene.info().ok()
        scene.seen()
    scene.fault(fault)
    answer = scene.info()
    assert answer.ok()[1:] == [0, 0, 0, 0]
    assert "".join(answer.warnings) == said
    assert scene.methods() == ROW[:asked]
    scene.fault("")
    assert scene.info().ok()[1:] == FIGURES


def test_late_status_leaves_the_rest_valid(known: Scene) -> None:
    """The watcher answers for the one that hangs; what was answered before it still counts."""
    known.fault("status=hang")
    assert known.info().ok() == [1, *FIGURES], "the last good figures"
    assert known.methods() == ROW


def test_log_lines_come_with_any_of_them(known: Scene) -> None:
    for method in ROW:
        known.fault(f"{method}=log")
        answer = known.info()
        assert answer.ok() == [1, *FIGURES]
        assert answer.stderr == f"{method} says hello\n"


def test_killed_server_between_two_looks(known: Scene) -> None:
    known.server.process.kill()
    known.server.process.wait()
    answer = known.info()
    assert answer.ok()[1] == 0
    assert "plugin server for type 'row' is not running" in "".join(answer.warnings)
    known.node.serve(known.node.base / "row.py")
    assert known.info().ok()[1:] == FIGURES


def test_server_replaced_while_it_is_asked(known: Scene) -> None:
    """Its successor is asked for all of them; nothing stays unread."""
    known.server.process.terminate()
    known.server.process.wait()
    known.node.serve(known.node.base / "row.py")
    assert known.info().ok() == [2, *FIGURES]
    assert known.methods() == ROW
    assert known.info().ok() == [1, *FIGURES]
    assert known.methods() == ROW


def test_statistics_and_trace_know_three_calls(known: Scene) -> None:
    known.info().ok()
    stats = json.loads(known.node.cli("stats", "--json", "row").stdout)["row"]["methods"]
    assert {stats[name]["calls"] for name in ROW} == {2}


def test_unknown_method_in_a_row(scene: Scene) -> None:
    with Client(scene.node.run / "row.sock", {"wire": 1, "type": "row"}) as client:
        names = "check_connection polish status"
        client.send("call", 1, names, "r1", {"type": "row"}, {}, {})
        kind, fields = client.receive()  # that the first one said yes goes without saying
        assert (kind, fields["id"]) == ("error", 2)
        assert client.call("status", 3, {"type": "row"})[1]["id"] == 3


def test_an_alarm_is_for_all_of_them(known: Scene) -> None:
    """What the first ones take, the last one hasn't got."""
    known.fault("check_connection=slow")
    code = """
        alarm(3);
        my $info = PVE::Storage::storage_info(PVE::Storage::config());
        alarm(0);
        return $info->{r1}->{active};
    """
    assert known.node.perl(code).ok() == 1
    left = {entry[0]: entry[4] for entry in known.seen()}
    assert 1.5 < left["check_connection"] <= 3
    assert 0 < left["activate_storage"] <= 1.5, "whose own limit is ten seconds"
