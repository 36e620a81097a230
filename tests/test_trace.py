# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge trace``: every call seen, nobody slowed, nothing secret, and replayed anywhere."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from author_util import Running, tray, wait
from bridge_util import Node, Server
from pve_pybridge import codec, recording, trace
from pve_pybridge.client import Client
from pve_pybridge.errors import ParameterError, RollbackBlocked, StorageError
from pve_pybridge.storage import Call
from pve_pybridge.trace import Trace

TOKEN = "t0ken/with+odd chars"
CALL = """
    my ($method, @given) = @ARGS;
    my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), 'tr');
    return PVE::Storage::Custom::PyBridge::tray->$method(map { ref($_) ? $scfg : $_ } @given);
"""


class Scene:
    """A node with a served storage."""

    def __init__(self, node: Node):
        self.node = node
        self.plugin = tray(node)
        self.server = node.serve(self.plugin)
        node.add("tr", "tray", tray_folder=node.base / "store")

    def call(self, *words: str) -> None:
        """One call, through the command."""
        self.node.cli("call", "tr", *words, check=False)

    def client(self) -> Client:
        """A connection of our own."""
        return Client("tray", self.server.socket, 20)

    def ask(self, client: Client, method: str = "get_volume_attribute", **args: object) -> Any:
        """A quick call on it."""
        given = args or {"volname": "vm-1-a", "attribute": "notes"}
        return client.call(method, "tr", {"tray-folder": str(self.node.base / "store")}, **given)

    def watch(self, *words: str, ready: str = "watching tray") -> Running:
        """A trace in the background that has begun."""
        return Running(self.node, "trace", *words, wait_for=ready)


@pytest.fixture
def scene(node: Node) -> Scene:
    return Scene(node)


def records(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if "method" in line]


# --- live ----------------------------------------------------------------------------------------


def test_live_view(scene: Scene) -> None:
    view = scene.watch("tr", "--count", "4")
    scene.call("alloc_image", "vmid=100", "format=raw", "size=1M")
    scene.call("activate_volume", "volname=vm-100-disk-0", "hints.guest-is-windows=1")
    scene.call("create_base", "volname=vm-100-disk-0")
    result = scene.node.perl(CALL, "list_images", "tr", {}, None, None, {})
    assert len(result.ok()) == 1
    assert view.process.wait(20) == 0
    lines = [line.rstrip() for line in view.text.splitlines()]
    assert lines[0].split() == ["TIME", "STORAGE", "CALL,", "→", "ANSWER", "TOOK"]
    assert lines[1].startswith("-- watching tray (process ")
    assert lines[2] == ""
    assert lines[3].startswith("pve-pybridge call tr alloc_image (process ")
    text = "\n".join(line[24:] for line in lines)
    assert "alloc_image  vmid=100  format=raw  size=1 MiB" in text
    assert "\n→ vm-100-disk-0\n" in text
    assert "activate_volume  vm-100-disk-0  hint guest-is-windows=1" in text
    assert "\n│ activating vm-100-disk-0 for Windows: True\n→ ok\n" in text
    assert "\n✗ unsupported: storage type 'tray' does not support create_base\n" in text
    assert "\n→ 1 volume: vm-100-disk-0" in text
    assert f"inline.pl (process {scene.node._perl[True, ()].pid})" in view.text


def test_a_task_is_named(scene: Scene) -> None:
    view = scene.watch("--count", "1")
    upid = "UPID:pve1:000003E8:0001A0B0:656F1C2E:qmstart:100:root@pam:"
    with Client("tray", scene.server.socket, 20, {"command": f"task {upid}", "pid": 4711}) as one:
        scene.ask(one)
    assert view.process.wait(20) == 0
    assert "task qmstart 100, started by root@pam (process 4711)\n" in view.text


def test_only_what_was_asked_for(scene: Scene) -> None:
    scene.node.add("other", "tray", tray_folder=scene.node.base / "store")
    mine = scene.watch("tr", "--json", "--count", "1", ready='"trace": 1')
    lists = scene.watch("--method", "list_images", "--json", "--count", "1", ready='"trace": 1')
    everything = scene.watch("--json", "--count", "3", ready='"trace": 1')
    scene.node.cli("call", "other", "status")
    scene.call("status")
    scene.call("list_images")
    for view in (mine, lists, everything):
        assert view.process.wait(20) == 0
    (one,) = records(mine.out)
    assert (one["storeid"], one["method"], one["type"]) == ("tr", "status", "tray")
    assert [one["method"] for one in records(lists.out)] == ["list_images"]
    assert [one["storeid"] for one in records(everything.out)] == ["other", "tr", "tr"]


def test_header_and_record(scene: Scene) -> None:
    view = scene.watch("--json", "--count", "1", ready='"trace": 1')
    before = time.time()
    scene.call("activate_volume", "volname=vm-1-a")
    assert view.process.wait(20) == 0
    header = json.loads(view.text.splitlines()[0])
    assert (header["trace"], header["type"]) == (1, "tray")
    assert header["manifest"]["type"] == "tray"
    (one,) = records(view.out)
    assert before - 1 < one["time"] < time.time()
    assert one["args"] == {"volname": "vm-1-a"}
    assert one["scfg"]["tray-folder"] == str(scene.node.base / "store")
    assert one["log"] == [["info", "activating vm-1-a for Windows: None"]]
    assert one["host"]["apiver"] == 15
    assert (one["result"], one["ms"] > 0) == (None, True)
    (same,) = [entry for entry in scene.server.calls() if entry["method"] == "activate_volume"]
    assert same == one, "one format for the file of serve --trace and for trace"


def test_over_a_restart(scene: Scene) -> None:
    view = scene.watch("--count", "2")
    scene.call("status")
    view.until("→ 400 B")
    assert scene.server.stop() == 0, "a watcher doesn't hold up the end of a server"
    view.until("-- tray: the plugin server closed the connection; waiting for it\n")
    scene.node.serve(scene.plugin)
    view.until("watching tray", 2)
    scene.call("status")
    assert view.process.wait(20) == 0


def test_nothing_to_watch(node: Node) -> None:
    done = node.cli("trace", check=False)
    assert done.stderr == f"pve-pybridge: no plugin server has a socket in {node.run}\n"
    node.add("tr", "tray")
    done = node.cli("trace", "nope", check=False)
    assert "storage 'nope' is not in" in done.stderr


# --- nobody is slowed ----------------------------------------------------------------------------


def watcher(scene: Scene) -> socket.socket:
    """Somebody who subscribes and then reads nothing."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(scene.server.socket))
    about = {"wire": codec.WIRE_VERSION, "type": "tray", "pid": 1, "command": "lazy"}
    sock.sendall(codec.encode("hello", about))
    sock.sendall(codec.encode("call", 1, "_trace", "", {}, {}, {}))
    return sock


def test_a_watcher_that_reads_nothing_slows_nobody(scene: Scene) -> None:
    lazy = watcher(scene)
    count = trace.QUEUE_RECORDS + 1500
    with scene.client() as client:
        alone = timed(scene, client, 300)
        assert alone < 5
        seconds = timed(scene, client, count)
    assert seconds < 30
    sizes = scene.server.process.pid
    memory = int(Path(f"/proc/{sizes}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert memory < 200 << 20
    # read at last: what fitted, and how much was left out
    lazy.settimeout(20)
    seen, dropped = 0, 0
    with lazy, lazy.makefile("rb") as stream:
        while seen + dropped < count + 300:
            (length,) = codec.HEADER.unpack(stream.read(4))
            kind, *values = codec.decode(stream.read(length))
            if kind == "log":
                entry = json.loads(values[2])
                seen += "method" in entry
                dropped += entry.get("dropped", 0)
    assert dropped > 0
    assert seen > trace.QUEUE_RECORDS


def timed(scene: Scene, client: Client, count: int) -> float:
    started = time.monotonic()
    for _ in range(count):
        scene.ask(client)
    return time.monotonic() - started


def test_watchers_that_die_cost_nothing(scene: Scene) -> None:
    for _ in range(5):
        watcher(scene).close()
    views = [scene.watch() for _ in range(2)]
    views[0].stop(signal.SIGKILL)
    with scene.client() as client:
        scene.ask(client)
        stats = client.call("_stats")
        wait(lambda: client.call("_stats")["connections"] == 2, lambda: str(stats))
    views[1].until("→ Größe ✓")
    assert "Traceback" not in scene.server.log.read_text()


def test_too_many_watchers(scene: Scene) -> None:
    lazy = [watcher(scene) for _ in range(trace.MAX_WATCHERS)]
    with scene.client() as client:
        wait(lambda: client.call("_stats")["connections"] == trace.MAX_WATCHERS + 1)
    done = scene.node.cli("trace", check=False)
    assert done.returncode == 1
    assert "-- tray: 16 traces of this server are running already\n" in done.stdout
    for one in lazy:
        one.close()


def test_a_watcher_that_reads_nothing_does_not_hold_up_the_end(scene: Scene) -> None:
    lazy = watcher(scene)
    with scene.client() as client:
        timed(scene, client, trace.QUEUE_RECORDS)
    started = time.monotonic()
    assert scene.server.stop() == 0
    assert time.monotonic() - started < 8
    lazy.close()


# --- nothing secret ------------------------------------------------------------------------------


def test_secrets_are_in_no_record(scene: Scene) -> None:
    """Given, logged, quoted, in errors: hidden in file, live view and recording."""
    out = scene.node.base / "record"
    view = scene.watch("tr", "--record", str(out), "--json", ready='"trace": 1')
    scene.node.perl(CALL, "on_add_hook", "tr", {}, "tray-token", TOKEN).ok()
    result = scene.node.perl(CALL, "deactivate_volume", "tr", {}, "vm-1-a", None, {})
    assert TOKEN in (result.error or "")  # its caller gets what the plugin said
    view.until('"method": "deactivate_volume"')
    view.stop()
    (added,) = [one for one in records(out) if one["method"] == "on_add_hook"]
    assert added["args"]["sensitive"] == {"tray-token": "***"}
    (failed,) = [one for one in records(out) if one["method"] == "deactivate_volume"]
    assert failed["error"]["message"] == "the array refused 'Bearer ***'"
    assert failed["log"] == [["info", "login at https://array/?token=***"]]
    for text in (view.text, out.read_text(), scene.server.trace.read_text()):
        for form in (TOKEN, quote(TOKEN), quote(TOKEN, safe=""), base64.b64encode(TOKEN.encode())):
            assert (form if isinstance(form, str) else form.decode()) not in text


SCFG = {"tray-token": "in storage.cfg by hand", "tray-folder": "/x"}


def test_secrets_by_name_and_value(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = Trace("tray", lambda: {"type": "tray"}, lambda: ["tray-token"], out)
    call = Call(method="on_update_hook_full", lines=[("info", "new token is geheim!")])
    given = {
        "update": {"tray-token": "geheim!", "content": {"images": 1}},
        "sensitive": {"tray-token": None},
    }
    outcome = {"result": {"key": "erzeugt"}, "extra": {"mutable": {"set": {"a": "x erzeugt"}}}}
    told.publish(call, "tr", SCFG, given, outcome, 0.1)
    told.publish(Call(method="status", secrets={"ab"}), "tr", SCFG, {}, {"result": "cab"}, 0.1)
    told.close()
    text = out.read_text()
    for word in ("geheim", "erzeugt", "by hand"):
        assert word not in text
    first, second = records(out)
    assert first["args"]["sensitive"] == {"tray-token": None}
    assert first["args"]["update"] == {"tray-token": "***", "content": {"images": 1}}
    assert first["scfg"] == {"tray-token": "***", "tray-folder": "/x"}
    assert first["result"] == {"key": "***"}
    assert second["result"] == "cab", "too short to be hidden inside of other words"


def test_long_records_are_cut(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = Trace("tray", lambda: {"type": "tray"}, file=out)
    rows = [{"volid": f"tr:vm-{i}-x", "size": i} for i in range(60_000)]
    told.publish(Call(method="list_images"), "tr", SCFG, {"vmid": 1}, {"result": rows}, 0.1)
    told.close()
    (one,) = records(out)
    assert (one["result"], one["cut"], one["args"]) == (None, ["result"], {"vmid": 1})
    assert out.stat().st_size < trace.MAX_RECORD


def test_a_trace_that_cannot_be_written(node: Node) -> None:
    done = node.cli("serve", str(tray(node)), "--trace", "/nowhere/file", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "pve-pybridge: can't write the trace to /nowhere/file: No such file or directory\n",
    )


# --- recorded ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recording of what a storage did, which is gone by now."""
    with Node(tmp_path_factory.mktemp("recorded")) as node:
        scene = Scene(node)
        out = node.base / "record"
        view = scene.watch("tr", "--record", str(out))
        scene.call("alloc_image", "vmid=100", "format=raw", "size=1M")
        scene.call("list_images")
        scene.call("activate_volume", "volname=vm-100-disk-0", "hints.guest-is-windows=1")
        scene.call("get_volume_attribute", "volname=vm-100-disk-0", "attribute=notes")
        scene.call("create_base", "volname=vm-100-disk-0")
        scene.call("free_image", "volname=vm-100-disk-0")
        scene.call("list_images")
        scene.call("status")
        view.until("→ 400 B")
        view.stop()
        (node.base / "store").rmdir()
        yield out


def test_replay_shows_the_calls(node: Node, recorded: Path) -> None:
    done = node.cli("trace", "--replay", str(recorded))
    assert done.stdout.count("  → ") == 7
    assert done.stdout.count("  ✗ ") == 1
    assert "│ activating vm-100-disk-0 for Windows: True\n" in done.stdout
    done = node.cli("trace", "--replay", str(recorded), "--method", "status", "--json")
    assert len(done.stdout.splitlines()) == 1


def test_replay_against_a_plugin(node: Node, recorded: Path) -> None:
    plugin = tray(node)
    where = ["--config", f"folder={node.base}/store"]
    same = node.cli("trace", "--replay", str(recorded), "--against", str(plugin), *where)
    assert same.stdout.endswith("8 calls, 0 answered differently\n"), same.stdout
    plugin.write_text(plugin.read_text().replace('name = name or f"vm-', 'name = name or f"vm-1'))
    done = node.cli(
        "trace", "--replay", str(recorded), "--against", str(plugin), *where, check=False
    )
    assert done.returncode == 1
    assert "different, it was: → vm-100-disk-0\n" in done.stdout
    assert not done.stdout.endswith(" 0 answered differently\n")


def test_a_recording_in_place_of_the_storage(node: Node, recorded: Path) -> None:
    """By the command and through the real shim, with nothing of the plugin here."""
    server = Running(node, "trace", "--replay", str(recorded), "--serve", wait_for="as recorded")
    allocate = ["alloc_image", "vmid=100", "format=raw", "size=1M"]
    assert node.cli("call", "tr", *allocate).stdout == "vm-100-disk-0\n"
    listed = [node.cli("call", "tr", "list_images", "--json").stdout for _ in range(3)]
    row = {"volid": "tr:vm-100-disk-0", "format": "raw", "size": 1 << 20}
    assert [json.loads(one) for one in listed] == [[row], [], []]
    done = node.cli("call", "--perl", "tr", "status")
    assert done.stdout == "400 B of 1000 B used, 600 B free\n"
    notes = ["volname=vm-100-disk-0", "attribute=notes"]
    for way in ([], ["--perl"]):
        assert node.cli("call", *way, "tr", "get_volume_attribute", *notes).stdout == "Größe ✓\n"
    done = node.cli("call", "tr", "create_base", "volname=vm-100-disk-0", check=False)
    assert "does not support create_base" in done.stderr
    done = node.cli("call", "tr", "path", "volname=vm-9-x", check=False)
    assert done.stderr == "pve-pybridge: storage 'tr': the recording has no such path\n"
    assert server.stop() == 0


BAD = [
    ("not json", "line 1: no record of a trace"),
    ('{"trace": 1, "type": "x"}\n{"a": 1}\n{}', "line 2: no record of a trace"),
    ("[]", "line 1: no record of a trace"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_no_recording(node: Node, text: str, message: str) -> None:
    file = node.base / "bad"
    file.write_text(text)
    done = node.cli("trace", "--replay", str(file), check=False)
    assert (done.returncode, done.stderr) == (1, f"pve-pybridge: {file}, {message}\n")


def test_recordings_of_other_versions_and_types(node: Node, recorded: Path) -> None:
    file = node.base / "new"
    file.write_text('{"trace": 2, "type": "x"}\n')
    done = node.cli("trace", "--replay", str(file), check=False)
    assert done.stderr == (
        f"pve-pybridge: {file} is a trace of version 2, this pve-pybridge reads up to 1: "
        "use a newer one\n"
    )
    plugin = tray(node)
    plugin.write_text(plugin.read_text().replace('"tray"', '"trays"'))
    done = node.cli("trace", "--replay", str(recorded), "--against", str(plugin), check=False)
    assert "the recording is of type 'tray', " in done.stderr
    done = node.cli("trace", "--replay", "/nowhere", check=False)
    assert done.stderr == "pve-pybridge: can't read /nowhere: No such file or directory\n"


def test_recording_that_was_cut_off(tmp_path: Path, recorded: Path) -> None:
    file = tmp_path / "cut"
    file.write_text(recorded.read_text()[:-40] + "")
    whole, cut = recording.read(recorded), recording.read(file)
    assert len(cut.calls) == len(whole.calls) - 1


def test_errors_come_back_as_they_were() -> None:
    def once(error: Mapping[str, Any]) -> StorageError:
        call = {"time": 0, "type": "x", "storeid": "s", "method": "status", "args": {}, "ms": 1}
        host = recording.Recorded(recording.Recording({}, [{**call, "error": error}]))
        with pytest.raises(StorageError) as caught:
            host.call(Call(method="status"), "s", {}, {})
        return caught.value

    blocked = once({"kind": "user", "message": "in the way", "blockers": ["a"]})
    assert isinstance(blocked, RollbackBlocked)
    assert (str(blocked), blocked.blockers) == ("in the way", ["a"])
    wrong = once({"kind": "param", "message": "bad", "errors": {"size": "odd"}})
    assert isinstance(wrong, ParameterError)
    assert (wrong.kind, wrong.errors) == ("param", {"size": "odd"})
    assert once({"kind": "timeout", "message": "late"}).kind == "timeout"


def test_a_call_that_was_too_late(node: Node) -> None:
    plugin = tray(node)
    text = plugin.read_text().replace(
        'type = "tray"', 'type = "tray"\n    deadlines = {"activate_volume": 0.5}'
    )
    plugin.write_text(text.replace("storage.sleep(", "time.sleep("))
    server: Server = node.serve(plugin)
    node.add("tr", "tray", tray_folder=node.base / "store", tray_slow="1.5")
    done = node.cli("call", "tr", "activate_volume", "volname=vm-1-a", check=False)
    assert "activate_volume got timeout after 0.5 s" in done.stderr
    wait(lambda: bool(server.calls("activate_volume")))
    (late,) = server.calls("activate_volume")
    assert late["late"] is True
    shown = node.cli("trace", "--replay", str(server.trace)).stdout
    assert "✗ too late, the caller had given up; it was: cancelled: activate_volume: " in shown
