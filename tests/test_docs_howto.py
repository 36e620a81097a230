# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The storages of the how-to pages, used by PVE through the shim."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from docs_util import sample
from pve_pybridge.testing.perl import PerlResult
from test_docs_guide import CONFIG, pve

FAKES = Path(__file__).parent / "fakes" / "iscsi"
MIB = 1 << 20
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="attaching loop devices needs root")


def error(result: PerlResult) -> str:
    assert result.error is not None, result.value
    return result.error


def volumes(node: Node, storeid: str) -> dict[str, Any]:
    """Volume ID → its row, as PVE lists them."""
    rows = pve(node, "vdisk_list", storeid).ok()[storeid]
    return {row["volid"]: row for row in rows}


# --- REST array ----------------------------------------------------------------------------------


class Array(ThreadingHTTPServer):
    """An array: volumes are files, sessions expire, names are unique, mappings are by host."""

    daemon_threads = True

    def __init__(self, folder: Path, token: str):
        super().__init__(("127.0.0.1", 0), Requests)
        self.folder = folder
        self.token = token
        self.sessions: set[str] = set()
        self.hosts: dict[str, set[str]] = {}
        self.seen: list[str] = []
        self.mutex = threading.Lock()

    def answer(self, method: str, path: str, body: Any, session: str) -> tuple[int, object]:
        if path == "login":
            if body != {"token": self.token}:
                return 401, "wrong token"
            session = secrets.token_hex(8)
            self.sessions.add(session)
            return 200, {"session": session}
        if session not in self.sessions:
            return 401, "no session"
        if path == "pool":
            used = sum(file.stat().st_size for file in self.folder.iterdir())
            return 200, {"size": 1 << 40, "free": (1 << 40) - used}
        if path == "volumes":
            files = sorted(self.folder.iterdir())
            return 200, [{"name": f.name, "size": f.stat().st_size} for f in files]
        return self.volume(method, path.split("/")[1:], body)

    def volume(self, method: str, path: list[str], body: Any) -> tuple[int, object]:
        name, *rest = path
        file = self.folder / name
        if method == "POST":
            if file.exists():
                return 409, "name is taken"
            file.touch()
            os.truncate(file, body["size"])
            return 200, None
        if not file.exists():
            return 404, f"no volume {name}"
        mapped = self.hosts.setdefault(name, set())
        match [method, *rest]:
            case ["PATCH"]:
                os.truncate(file, body["size"])
            case ["DELETE"]:
                if mapped:
                    return 423, "volume is mapped"
                file.unlink()
            case ["GET", "hosts"]:
                return 200, sorted(mapped)
            case ["PUT", "hosts", host]:
                mapped.add(host)
            case ["DELETE", "hosts", host]:
                mapped.discard(host)
        return 200, None


class Requests(BaseHTTPRequestHandler):
    server: Array

    def handle_any(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.mutex:
            self.server.seen.append(f"{self.command} {self.path}")
            session = self.headers["X-Session"]
            status, answer = self.server.answer(self.command, self.path[1:], body, session)
        data = json.dumps(answer).encode() if status == 200 else str(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def array(node: Node) -> Iterator[Array]:
    """An array in reach of a node that has a storage on it."""
    if node.perl("PVE::Storage::APIVER()", env={"EARLIER": "1"}).ok() < 11:
        pytest.skip("this host takes PVE's own four secrets only")
    folder = node.base / "array"
    folder.mkdir()
    with Array(folder, "t0ken") as it:
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        devices = node.base / "by-id"
        source = sample("restarray.py").replace("/dev/disk/by-id", str(devices))
        node.serve(node.plugin("restarray", source))
        url = f"http://127.0.0.1:{it.server_port}"
        given = {"storage": "a1", "type": "restarray", "restarray-url": url, "content": "images"}
        node.perl(CONFIG, "create", {**given, "restarray-token": "t0ken"}).ok()
        yield it
        it.shutdown()
        thread.join()


def test_rest_array(node: Node, array: Array) -> None:
    status = pve(node, "storage_info").ok()["a1"]
    assert (status["active"], status["total"]) == (1, 1 << 40)
    volid = pve(node, "vdisk_alloc", "a1", "100", "raw", None, 1500).ok()
    assert volid == "a1:vm-100-disk-0"
    assert (array.folder / "vm-100-disk-0").stat().st_size == 2 * MIB  # rounded up
    assert pve(node, "vdisk_alloc", "a1", "100", "raw", None, 1024).ok() == "a1:vm-100-disk-1"
    pve(node, "activate_volumes", [volid]).ok()
    pve(node, "activate_volumes", [volid]).ok()
    assert array.hosts["vm-100-disk-0"] == {socket.gethostname()}
    assert pve(node, "path", volid).ok().endswith("/by-id/restarray-a1-vm-100-disk-0")
    pve(node, "volume_resize", volid, 4 * MIB, 1).ok()
    assert {v: row["size"] for v, row in volumes(node, "a1").items()} == {
        "a1:vm-100-disk-0": 4 * MIB,
        "a1:vm-100-disk-1": MIB,
    }
    array.hosts["vm-100-disk-0"].add("other-node")  # a migration's target
    pve(node, "deactivate_volumes", [volid]).ok()
    assert array.hosts["vm-100-disk-0"] == {"other-node"}
    assert error(pve(node, "vdisk_free", volid)) == (
        "a1: DELETE volumes/vm-100-disk-0: volume is mapped\n"
    )
    array.hosts["vm-100-disk-0"].clear()
    pve(node, "vdisk_free", volid).ok()
    assert set(volumes(node, "a1")) == {"a1:vm-100-disk-1"}
    assert array.seen.count("POST /login") == 1, "one session for all of that"


def test_rest_session_expires(node: Node, array: Array) -> None:
    assert volumes(node, "a1") == {}
    array.sessions.clear()
    array.seen.clear()
    assert volumes(node, "a1") == {}
    assert array.seen.count("POST /login") == 1
    array.sessions.clear()
    array.token = "changed at the array"
    assert error(pve(node, "vdisk_list", "a1")) == "a1: GET volumes: wrong token\n"
    node.perl(CONFIG, "update", {"storage": "a1", "restarray-token": array.token}).ok()
    assert volumes(node, "a1") == {}


def test_rest_array_gone(node: Node, array: Array) -> None:
    """No answer is an error, and the storage inactive; nothing hangs, no list is empty."""
    array.server_close()
    array.shutdown()
    assert "array doesn't answer" in error(pve(node, "vdisk_list", "a1"))
    assert pve(node, "storage_info").ok()["a1"]["active"] == 0


# --- CLI tool ------------------------------------------------------------------------------------


def test_cli_tool(node: Node) -> None:
    folder = node.base / "box"
    folder.mkdir()
    node.serve(node.plugin("cowbox", sample("cowbox.py")))
    node.add("c1", "cowbox", cowbox_folder=folder, content="images")
    volid = pve(node, "vdisk_alloc", "c1", "100", "qcow2", None, 1024).ok()
    assert volid == "c1:vm-100-disk-0"
    info = json.loads(
        subprocess.check_output(
            ["qemu-img", "info", "--output=json", folder / "vm-100-disk-0.qcow2"]
        )
    )
    assert (info["format"], info["virtual-size"]) == ("qcow2", MIB)
    other = pve(node, "vdisk_alloc", "c1", "101", "qcow2", None, 528).ok()
    assert {v: row["size"] for v, row in volumes(node, "c1").items()} == {
        volid: MIB,
        other: 528 << 10,
    }
    assert set(pve(node, "vdisk_list", "c1", "101").ok()["c1"][0]) >= {"volid", "size", "vmid"}
    pve(node, "volume_resize", volid, 3 * MIB, 0).ok()
    assert pve(node, "volume_size_info", volid, 5).ok() == 3 * MIB
    taken = pve(node, "vdisk_alloc", "c1", "100", "qcow2", "vm-100-disk-0", 1024)
    assert error(taken) == "c1: volume name 'vm-100-disk-0' is taken\n"
    (folder / "vm-101-disk-0.qcow2").write_bytes(b"QFI\xfb broken")
    assert "qemu-img info" in error(pve(node, "vdisk_list", "c1")), "a failure is no empty list"
    for one in (volid, other):
        pve(node, "vdisk_free", one).ok()
    assert list(folder.iterdir()) == []
    assert error(pve(node, "volume_size_info", volid, 5)) == f"{volid} does not exist\n"


# --- iSCSI ---------------------------------------------------------------------------------------

WWIDS = ("36001405aaaa", "36001405bbbb")


@pytest.fixture
def san(node: Node, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with the sample, whose commands are played; two LUNs at the array."""
    home = node.base / "san"
    for name in ("luns", "mapper"):
        (home / name).mkdir(parents=True)
    table = {}
    for number, wwid in enumerate(WWIDS):
        (home / "luns" / wwid).touch()
        os.truncate(home / "luns" / wwid, MIB)
        table[f"vm-100-disk-{number}"] = {"wwid": wwid, "size": MIB}
    (home / "table.json").write_text(json.dumps(table))
    (home / "busy").write_text("")
    empty: dict[str, list[str]] = {"sessions": [], "nodes": [], "paths": [], "wwids": []}
    (home / "state.json").write_text(json.dumps(empty))
    monkeypatch.setenv("FAKE_SAN", str(home))
    source = sample("sanlun.py").replace("/dev/mapper", str(home / "mapper"))
    commands = '"(iscsiadm|multipath|multipathd|blockdev)"'
    source = re.sub(commands, lambda match: f'"{FAKES}/{match[1]}"', source)
    source = source.replace("storage.run(", "_run(storage, ") + ENVIRONMENT
    node.serve(node.plugin("sanlun", source))
    portals = "192.0.2.1:3260,192.0.2.2:3260"
    target = "iqn.2026-11.example:array"
    options = {"sanlun_table": home / "table.json", "sanlun_target": target}
    node.add("i1", "sanlun", **options, sanlun_portals=portals, content="images")
    return home


ENVIRONMENT = """

def _run(storage, args, **options):
    import os
    return storage.run(args, env={"FAKE_SAN": os.environ["FAKE_SAN"]}, **options)
"""


def said(home: Path) -> list[str]:
    """The commands since last asked."""
    lines = (home / "argv").read_text().splitlines()
    (home / "argv").write_text("")
    return lines


def test_iscsi(node: Node, san: Path) -> None:
    volid, wwid = "i1:vm-100-disk-0", WWIDS[0]
    assert pve(node, "path", volid).ok() == str(san / "mapper" / wwid)
    pve(node, "activate_volumes", [volid]).ok()
    state = json.loads((san / "state.json").read_text())
    assert len(state["sessions"]) == 2, "both portals"
    assert [path.name for path in (san / "mapper").iterdir()] == [wwid], "only this LUN"
    logins = [line for line in said(san) if "--login" in line]
    assert len(logins) == 2
    pve(node, "activate_volumes", [volid], env={"AGAIN": "1"}).ok()
    assert said(san) == ["iscsiadm -m session"], "idempotent, and no second login"
    table = json.loads((san / "table.json").read_text())
    table["vm-100-disk-0"]["size"] = MIB
    pve(node, "volume_resize", volid, 2 * MIB, 1).ok()
    assert said(san)[-2:] == [
        "iscsiadm -m session --rescan",
        f"multipathd resize map {wwid}",
    ]
    (san / "busy").write_text(wwid)
    failed = pve(node, "deactivate_volumes", [volid])
    assert "map in use" in error(failed) + failed.stderr
    assert (san / "mapper" / wwid).exists()
    (san / "busy").write_text("")
    said(san)
    pve(node, "deactivate_volumes", [volid]).ok()
    down = [line.split("/")[0] + line[-len(wwid) :] for line in said(san)]
    assert [line.split()[:2] for line in down][-3:] == [
        ["blockdev", "--flushbufs"],
        ["multipath", "-f"],
        ["multipath", "-w"],
    ]
    assert list((san / "mapper").iterdir()) == []
    pve(node, "deactivate_volumes", [volid]).ok()


def test_iscsi_lun_does_not_come(node: Node, san: Path) -> None:
    """The wait ends with the caller; nothing is left that maps the LUN later."""
    (san / "luns" / WWIDS[1]).unlink()
    code = """
        require Time::HiRes;
        local $SIG{ALRM} = sub { die "gone\\n" };
        Time::HiRes::alarm(2);
        PVE::Storage::activate_volumes(PVE::Storage::config(), ['i1:vm-100-disk-1']);
    """
    assert "gone" in error(node.perl(code))
    time.sleep(1)
    said(san)
    time.sleep(1)
    assert said(san) == [], "it went on trying"
    assert "no LUN for volume" in error(pve(node, "path", "i1:vm-100-disk-7"))


# --- snapshots and clones ------------------------------------------------------------------------


@pytest.fixture
def beside(node: Node, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's miniloop lies beside the sample; the folder of the image files."""
    node.plugin("miniloop", sample("miniloop.py"))
    monkeypatch.setenv("PYTHONPATH", f"{node.base}:{os.environ.get('PYTHONPATH', '')}")
    folder = node.base / "folder"
    folder.mkdir()
    return folder


def write(node: Node, volid: str, text: str) -> None:
    with Path(pve(node, "path", volid).ok()).open("r+b", buffering=0) as device:
        device.write(text.encode().ljust(4096, b"\0"))
        os.fsync(device.fileno())


def read(node: Node, volid: str) -> str:
    with Path(pve(node, "path", volid).ok()).open("rb") as device:
        return device.read(4096).rstrip(b"\0").decode()


@ROOT_ONLY
def test_snapshots(node: Node, beside: Path) -> None:
    node.plugin("snaploop", sample("snaploop.py"))
    node.serve("snaploop")
    node.add("sl", "snaploop", snaploop_folder=beside, content="images,rootdir")
    volid = pve(node, "vdisk_alloc", "sl", "100", "raw", None, 1024).ok()
    assert pve(node, "volume_has_feature", "snapshot", volid).ok()
    pve(node, "activate_volumes", [volid]).ok()
    write(node, volid, "before")
    refused = pve(node, "volume_snapshot", volid, "one")
    if refused.error is None:
        pytest.skip("this file system has reflinks")
    assert "has no reflinks" in refused.error
    pve(node, "deactivate_volumes", [volid]).ok()
    pve(node, "volume_snapshot", volid, "one").ok()
    pve(node, "activate_volumes", [volid]).ok()
    write(node, volid, "after")
    assert read(node, volid) == "after"
    pve(node, "deactivate_volumes", [volid]).ok()
    assert list(pve(node, "volume_snapshot_info", volid).ok()) == ["one"]
    assert set(volumes(node, "sl")) == {volid}, "a snapshot is no volume"
    pve(node, "volume_snapshot_rollback", volid, "one").ok()
    pve(node, "activate_volumes", [volid]).ok()
    assert read(node, volid) == "before"
    pve(node, "activate_volumes", [volid], "one").ok()
    loop = Path(os.readlink(pve(node, "path", volid, "one").ok())).name
    assert Path(f"/sys/block/{loop}/ro").read_text() == "1\n"
    pve(node, "volume_snapshot_delete", volid, "one").ok()
    assert read(node, volid) == "before", "the volume stays attached"
    pve(node, "volume_snapshot_delete", volid, "one").ok()
    pve(node, "vdisk_free", volid).ok()
    assert [path for path in beside.rglob("*") if path.is_file()] == []


@ROOT_ONLY
def test_clones(node: Node, beside: Path) -> None:
    node.plugin("cloneloop", sample("cloneloop.py"))
    node.serve("cloneloop")
    node.add("cl", "cloneloop", cloneloop_folder=beside, content="images")
    volid = pve(node, "vdisk_alloc", "cl", "100", "raw", None, 1024).ok()
    assert pve(node, "volume_has_feature", "template", volid).ok()
    assert not pve(node, "volume_has_feature", "clone", volid).ok()
    pve(node, "activate_volumes", [volid]).ok()
    write(node, volid, "golden")
    base = pve(node, "vdisk_create_base", volid).ok()
    assert base == "cl:base-100-disk-0"
    assert pve(node, "volume_has_feature", "clone", base).ok()
    clones = [pve(node, "vdisk_clone", base, vmid).ok() for vmid in ("101", "102")]
    assert clones == ["cl:vm-101-disk-0", "cl:vm-102-disk-0"]
    pve(node, "activate_volumes", clones).ok()
    write(node, clones[0], "changed")
    assert [read(node, clone) for clone in clones] == ["changed", "golden"]
    pve(node, "vdisk_free", base).ok()
    assert read(node, clones[1]) == "golden", "whole in itself"
    moved = pve(node, "rename_volume", clones[1], "103").ok()
    assert moved == "cl:vm-103-disk-0"
    taken = pve(node, "rename_volume", clones[0], "103", "vm-103-disk-0")
    assert "already exists" in error(taken)
    for one in (clones[0], moved):
        pve(node, "vdisk_free", one).ok()
    assert list(beside.iterdir()) == []


# --- several nodes -------------------------------------------------------------------------------


def test_several_nodes(tmp_path: Path) -> None:
    """Two nodes, one directory: the same storage, the same paths, one activation each."""
    share = tmp_path / "share"
    share.mkdir()
    given = {"storage": "co", "type": "common", "path": str(share), "content": "images"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Node(tmp_path / "a") as one, Node(tmp_path / "b") as two:
        for node in (one, two):
            node.serve(node.plugin("common", sample("common.py")))
        one.perl(CONFIG, "create", given).ok()
        two.storage_cfg(one.storage_cfg())  # as the cluster file system does
        assert pve(one, "storage_info").ok()["co"]["shared"] == 1
        identity = "PVE::Storage::Plugin->lookup('common')->get_identity($ARGS[0], 'co')"
        scfg = {"type": "common", "path": str(share)}
        same = {node.perl(identity, scfg).ok() for node in (one, two)}
        assert len(same) == 1
        volid = pve(one, "vdisk_alloc", "co", "100", "raw", None, 1024).ok()
        assert set(volumes(two, "co")) == {volid}
        assert pve(one, "path", volid).ok() == pve(two, "path", volid).ok()
        for node in (one, two):  # live migration: both at once, then the source lets go
            pve(node, "activate_volumes", [volid]).ok()
        pve(one, "deactivate_volumes", [volid]).ok()
        assert Path(pve(two, "path", volid).ok()).stat().st_size == MIB
        (share / ".storage-id").rename(tmp_path / "elsewhere")  # not mounted
        with two.session() as fresh:
            code = "PVE::Storage::activate_storage(PVE::Storage::config(), 'co')"
            assert error(fresh.run(code)) == f"co: nothing is mounted at {share}\n"
