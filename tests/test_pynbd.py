# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pynbd`` with real daemons: the life of volumes, transfer."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_util import GENUINE, Node
from pve_pybridge.qemu import daemon, detached
from qemu_util import CFG, MIB, NBD, Store, daemon_pid, nbd_store, qemu_io, run, until

pytestmark = NBD


@pytest.fixture
def store(node: Node) -> Iterator[Store]:
    with nbd_store(node) as it:
        yield it


# --- volumes --------------------------------------------------------------------------------------


@pytest.mark.contract("C-055", "C-057", "C-058", "C-065")
@pytest.mark.method("alloc_image", "volume_size_info", "list_images")
@pytest.mark.parametrize(
    ("kib", "size"), [(1, 1024), (528, 528 << 10), (4096, 4 << 20), (1.5, 1536), (2**36, 1 << 46)]
)
def test_sizes(store: Store, kib: float, size: int) -> None:
    volid = store.alloc(kib)
    assert volid == store.volid("vm-100-disk-0")
    assert store.call("volume_size_info", volid, 5) == size
    assert [one["size"] for one in store.list()] == [size]
    store.call("activate_volumes", [volid])
    shown = json.loads(run("qemu-img", "info", "--output=json", store.path(volid)))
    assert shown["virtual-size"] == size


@pytest.mark.contract("C-056", "C-059")
@pytest.mark.method("alloc_image")
@pytest.mark.parametrize("name", ["vm-100-cloudinit", "vm-100-state-before", "vm-100-fleece-0"])
def test_names_of_core(store: Store, name: str) -> None:
    assert store.alloc(4096, name) == store.volid(name)
    code = f"{CFG} PVE::Storage::vdisk_alloc($cfg, '{store.id}', 100, $ARGS[1], $ARGS[0], 4096)"
    assert store.node.perl(code, name, "raw").error == f"volume '{name}' already exists\n"
    other = name.replace("100", "101")
    message = f"illegal name '{other}' - should be 'vm-100-*'\n"
    assert store.node.perl(code, other, "raw").error == message
    assert store.node.perl(code, None, "qcow2").error is not None
    assert sorted(os.listdir(store.folder)) == [f"{name}.qcow2"]


@pytest.mark.contract("C-072", "C-073", "C-074", "C-070")
@pytest.mark.method("activate_volume", "deactivate_volume")
def test_twice_up_once_down(store: Store) -> None:
    volid = store.alloc(8192)
    before = store.path(volid)
    store.call("activate_volumes", [volid])
    store.call("activate_volumes", [volid])
    assert store.path(volid) == before == f"nbd:unix:{store.run}/nbd:exportname=vm-100-disk-0"
    qemu_io(before, "read -P 0 0 8M", "write -P 0x61 0 64k", "read -P 0x61 0 64k")
    store.call("deactivate_volumes", [volid, store.volid("vm-999-disk-0")])
    store.call("deactivate_volumes", [volid])
    assert daemon_pid(store) is None, "nothing is exported, so no daemon is needed"


@pytest.mark.contract("C-075")
@pytest.mark.method("deactivate_volume")
def test_busy_volume_stays(store: Store) -> None:
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    user = subprocess.Popen(
        ["qemu-io", "-f", "raw", store.path(volid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert user.stdin is not None
    with user:
        until(lambda: daemon.clients(store.run / "nbd") == 1)
        code = f"{CFG} PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]])"
        result = store.node.perl(code, volid)
        assert result.error == f"volume deactivation failed: {volid}\n"
        assert "the volume is in use (nbd client)" in result.stderr
        out, _ = user.communicate(b"write -P 7 0 4k\nread -P 7 0 4k\nquit\n")
    assert out.count(b"4096/4096") == 2
    store.call("deactivate_volumes", [volid])


@pytest.mark.contract("C-079", "C-075")
@pytest.mark.method("map_volume", "unmap_volume")
@pytest.mark.parametrize("undo", ["unmap_volume", "deactivate_volumes"])
def test_mapping_is_a_file(store: Store, undo: str) -> None:
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    qemu_io(store.path(volid), "write -P 0x61 0 64k")
    path = Path(store.call("map_volume", volid))
    assert path == store.run / "map" / "vm-100-disk-0"
    store.call("activate_volumes", [volid])
    assert store.call("map_volume", volid) == str(path)
    argument = volid if undo == "unmap_volume" else [volid]
    with path.open("r+b") as file:
        assert file.read(4) == b"aaaa"
        file.seek(MIB)
        file.write(b"more")
        file.flush()
        result = store.node.perl(f"{CFG} PVE::Storage::{undo}($cfg, $ARGS[0])", argument)
        assert f"the volume is in use ('{path}')" in f"{result.error}{result.stderr}"
    store.call(undo, argument)
    assert not path.exists()
    store.call("activate_volumes", [volid])
    qemu_io(store.path(volid), "read -P 0x6d 1M 1")
    answer = store.blockdev(volid)
    assert answer == {
        "driver": "nbd",
        "server": {"type": "unix", "path": f"{store.run}/nbd"},
        "export": "vm-100-disk-0",
        "reconnect-delay": 300,
        "open-timeout": 10,
    }


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
def test_resize(store: Store) -> None:
    volid = store.alloc(8192)
    store.call("volume_resize", volid, 16 * MIB, 0)
    assert store.call("volume_size_info", volid, 5) == 16 * MIB
    store.call("activate_volumes", [volid])
    store.call("volume_resize", volid, 32 * MIB, 0)
    qemu_io(store.path(volid), "write -P 1 31M 1M")
    path = Path(store.call("map_volume", volid))
    store.call("volume_resize", volid, 64 * MIB, 0)
    assert path.stat().st_size == 64 * MIB
    code = f"{CFG} PVE::Storage::volume_resize($cfg, $ARGS[0], $ARGS[1], 0)"
    assert "can't shrink" in str(store.node.perl(code, volid, MIB).error)


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
def test_resize_under_an_idle_guest_changes_nothing(store: Store) -> None:
    """Its QEMU would not notice before PVE's block_resize; a guest at work: see test_qemu.py."""
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    command = ["qemu-io", "-f", "raw", store.path(volid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as idle:
        until(lambda: daemon.clients(store.run / "nbd") == 1)
        code = f"{CFG} PVE::Storage::volume_resize($cfg, $ARGS[0], $ARGS[1], 4711)"
        error = str(store.node.perl(code, volid, 16 * MIB).error)
        assert "'vm-100-disk-0' was not resized: its guest is idle" in error
        assert store.call("volume_size_info", volid, 5) == 8 * MIB
        assert idle.stdin is not None
        idle.stdin.close()


@pytest.mark.contract("C-044", "C-045", "C-060", "C-061", "C-064", "C-067", "C-068", "C-069")
@pytest.mark.method("create_base", "clone_image", "rename_volume", "free_image")
def test_templates_and_clones(store: Store) -> None:
    volid = store.alloc(8192)
    store.write(volid, "a")
    base = store.call("vdisk_create_base", volid)
    assert base == store.volid("base-100-disk-0")
    clones = [store.call("vdisk_clone", base, vmid) for vmid in (101, 102)]
    assert clones[0] == store.volid("base-100-disk-0/vm-101-disk-0")
    store.call("activate_volumes", [base, *clones])
    assert {store.read(one) for one in clones} == {"a"}
    store.write(clones[0], "c")
    assert store.read(clones[1]) == store.read(base) == "a"
    code = f"{CFG} PVE::Storage::vdisk_free($cfg, $ARGS[0])"
    assert "is still in use by" in str(store.node.perl(code, base).error)
    moved = store.call("rename_volume", clones[0], 103)
    assert moved == store.volid("base-100-disk-0/vm-103-disk-0")
    assert store.read(moved) == "c"
    taken = f"{CFG} PVE::Storage::rename_volume($cfg, $ARGS[0], 102, 'vm-102-disk-0')"
    assert "already exists" in str(store.node.perl(taken, moved).error)
    listed = {one["volid"]: one.get("parent") for one in store.list()}
    assert listed == {base: None, clones[1]: "base-100-disk-0", moved: "base-100-disk-0"}
    for one in (moved, clones[1], base, base):
        store.call("vdisk_free", one)
    assert os.listdir(store.folder) == []
    assert daemon_pid(store) is None


# --- snapshots ------------------------------------------------------------------------------------


@pytest.mark.contract("C-080", "C-082", "C-084", "C-085", "C-086", "C-087", "C-088", "C-090")
@pytest.mark.method("volume_snapshot", "volume_snapshot_delete", "volume_snapshot_rollback")
@pytest.mark.parametrize("active", [True, False])
def test_snapshots(store: Store, active: bool) -> None:
    volid = store.alloc(8192)
    assert store.call("volume_snapshot_info", volid) == {}
    names = ["one", "vzdump", "__migration__", "with-dash_" + "x" * 30]
    for index, name in enumerate(names):
        store.write(volid, "abcd"[index], keep=active)
        store.call("volume_snapshot", volid, name)
    store.write(volid, "e", keep=active)
    info = store.call("volume_snapshot_info", volid)
    assert sorted(info) == sorted(names)
    assert all(abs(one["timestamp"] - time.time()) < 100 and one["id"] for one in info.values())
    assert [store.read(volid, name) for name in names] == list("abcd")
    assert store.read(volid) == "e"
    store.call("volume_snapshot_delete", volid, "vzdump", 1)
    store.call("volume_snapshot_delete", volid, "vzdump", 1)
    store.call("volume_snapshot_rollback", volid, "one")
    assert store.read(volid) == "a"
    assert sorted(store.call("volume_snapshot_info", volid)) == sorted(set(names) - {"vzdump"})
    store.call("deactivate_volumes", [volid])
    store.call("vdisk_free", volid)
    assert os.listdir(store.folder) == []


@pytest.mark.contract("C-080", "C-082")
@pytest.mark.method("map_volume", "activate_volume")
def test_a_snapshot_is_read_only(store: Store) -> None:
    """As a backup of a running container has it: activated, mapped, and only deactivated."""
    volid = store.alloc(8192)
    store.write(volid, "a", keep=True)
    store.call("volume_snapshot", volid, "vzdump")
    store.write(volid, "b", keep=True)
    code = f"{CFG} PVE::Storage->can($ARGS[0])->($cfg, $ARGS[1], 'vzdump')"
    store.node.perl(code, "activate_volumes", [volid]).ok()
    path = Path(store.node.perl(code, "map_volume", volid).ok())
    assert path.read_bytes()[:1] == b"a"
    with pytest.raises(OSError, match=r"Permission denied|Read-only|not permitted"):
        path.write_bytes(b"x")
    store.node.perl(code, "deactivate_volumes", [volid]).ok()
    assert not path.exists()
    assert store.read(volid) == "b"
    missing = store.node.perl(code.replace("'vzdump'", "'nope'"), "activate_volumes", [volid])
    assert missing.error is not None


def test_foreign_files_are_left_out(store: Store) -> None:
    volid = store.alloc(8192)
    (store.folder / "vm-100-disk-1.qcow2").write_bytes(b"not an image")
    (store.folder / "holiday.qcow2").write_bytes(
        (store.folder / "vm-100-disk-0.qcow2").read_bytes()
    )
    assert [one["volid"] for one in store.list()] == [volid]
    assert store.alloc(8192) == store.volid("vm-100-disk-2")


# --- transfer -------------------------------------------------------------------------------------


@pytest.mark.contract("C-091", "C-095")
@pytest.mark.method("volume_export", "volume_import")
@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("snapshot", [None, "one"])
def test_export_and_import(store: Store, active: bool, snapshot: str | None) -> None:
    volid = store.alloc(4096)
    store.write(volid, "a")
    store.call("volume_snapshot", volid, "one")
    store.write(volid, "b", keep=active)
    data = store.export(volid, snapshot)
    assert data[:8] == (4 * MIB).to_bytes(8, "little")
    expected = b"a" if snapshot else b"b"
    assert data[8:] == expected * 4096 + bytes(4 * MIB - 4096)
    new = store.import_("vm-200-disk-0", data).ok()
    assert new == store.volid("vm-200-disk-0")
    assert store.read(new) == expected.decode()
    assert list(store.folder.glob(".*")) == []
    store.call("deactivate_volumes", [volid, new])
    assert daemon_pid(store) is None
    assert not [one for one in store.run.glob("snapshot-*.pid") if detached.pid_of(one)]


@pytest.mark.contract("C-092", "C-093")
@pytest.mark.method("volume_import")
def test_import_of_a_broken_stream(store: Store) -> None:
    data = (4 * MIB).to_bytes(8, "little") + b"x" * MIB
    result = store.import_("vm-100-disk-0", data)
    assert f"stream ended after {MIB} of {4 * MIB} bytes" in str(result.error)
    assert os.listdir(store.folder) == []
    assert daemon_pid(store) is None
    volid = store.alloc(1024)
    whole = MIB.to_bytes(8, "little") + b"x" * MIB
    assert "already exists" in str(store.import_("vm-100-disk-0", whole).error)
    assert store.import_("vm-100-disk-0", whole, rename=True).ok() == store.volid("vm-100-disk-1")
    assert store.read(volid) == "\0"


# --- storage --------------------------------------------------------------------------------------


@pytest.mark.contract("C-081", "C-083")
@pytest.mark.method("qemu_blockdev_options")
@pytest.mark.parametrize("machine", ["10.0+pve0", "pc-q35-10.1", None])
def test_blockdev_options(store: Store, machine: str | None) -> None:
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    assert store.blockdev(volid, machine=machine)["export"] == "vm-100-disk-0"
    assert store.call("volume_qemu_snapshot_method", volid) == "storage"
    store.call("volume_snapshot", volid, "one")
    snapshot = store.blockdev(volid, {"snapshot-name": "one"})
    assert snapshot["export"] == "vm-100-disk-0@one"
    assert snapshot["server"]["path"] != f"{store.run}/nbd"
    store.call("map_volume", volid)
    mapped = {"driver": "file", "filename": f"{store.run}/map/vm-100-disk-0"}
    assert store.blockdev(volid) == mapped


@pytest.mark.skipif(not GENUINE, reason="the stand-in has no base method to compare with")
def test_genuine_base_reads_the_path_alike(store: Store) -> None:
    volid = store.alloc(8192)
    code = f"""
        {CFG}
        my $class = PVE::Storage::Plugin->lookup('pynbd');
        my $scfg = $cfg->{{ids}}->{{$ARGS[0]}};
        my $base = $class->can('SUPER::qemu_blockdev_options')
            // \\&PVE::Storage::Plugin::qemu_blockdev_options;
        return $base->($class, $scfg, $ARGS[0], 'vm-100-disk-0', undef, {{}});
    """
    base = store.node.perl(code, store.id).ok()
    mine = store.blockdev(volid)
    assert {key: mine[key] for key in base} == base


def test_never_shared(store: Store) -> None:
    store.node.storage_cfg(store.node.storage_cfg() + "\tshared 1\n")
    code = f"{CFG} PVE::Storage::activate_storage($cfg, $ARGS[0])"
    assert "can't be shared" in str(store.node.perl(code, store.id).error)


@pytest.mark.method("status", "check_connection")
def test_status(store: Store) -> None:
    info = store.node.perl(f"{CFG} PVE::Storage::storage_info($cfg)->{{$ARGS[0]}}", store.id).ok()
    fs = os.statvfs(store.folder)
    assert info["active"] == 1
    assert info["total"] == fs.f_blocks * fs.f_frsize
