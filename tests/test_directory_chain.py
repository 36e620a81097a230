# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots as a chain of volumes."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from directory_util import MIB, Dir, disk_hash, info, qemu_io, small_filesystem
from pve_pybridge import Cancelled, RollbackBlocked, StorageError
from pve_pybridge.storage import Call

CHAIN = {"snapshot-as-volume-chain": 1}


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "storage", **CHAIN)


class Guest:
    """A disk with a history: ``step`` writes a pattern and takes a snapshot."""

    def __init__(self, it: Dir, tmp: Path, format_: str = "qcow2"):
        self.it, self.tmp = it, tmp
        self.volname = it.alloc(100, format_, 4 * MIB)
        self.hashes: dict[str, str] = {}
        self.pattern = 0

    def write(self) -> None:
        self.pattern += 1
        offset = self.pattern * 128
        path = self.it.path(self.volname)
        qemu_io(path, f"write -P {self.pattern} {offset}k 128k", f"write -P {self.pattern} 0 64k")

    def snapshot(self, name: str) -> None:
        self.write()
        self.hashes[name] = self.hash()
        self.it("volume_snapshot", self.volname, name)

    def hash(self) -> str:
        return disk_hash(self.it.path(self.volname), "qcow2", self.tmp)

    def hash_of(self, name: str) -> str:
        path = self.it.plugin.path(self.it.storage(), self.volname, name)
        return disk_hash(Path(path), "qcow2", self.tmp)

    def names(self) -> list[str]:
        found = self.it("volume_snapshot_info", self.volname)
        return sorted(found, key=lambda name: -found[name].order)


@pytest.fixture
def guest(it: Dir, tmp_path: Path) -> Guest:
    made = Guest(it, tmp_path)
    for name in ("a", "b", "c"):
        made.snapshot(name)
    made.write()
    return made


@pytest.mark.contract("C-080", "C-084")
def test_every_snapshot_is_a_file(it: Dir, guest: Guest) -> None:
    assert it.files() == [
        "100",
        "100/snap-a-vm-100-disk-0.qcow2",
        "100/snap-b-vm-100-disk-0.qcow2",
        "100/snap-c-vm-100-disk-0.qcow2",
        "100/vm-100-disk-0.qcow2",
    ]
    answer = info(it.path(guest.volname))
    assert answer["backing-filename"] == "snap-c-vm-100-disk-0.qcow2"
    assert answer["backing-filename-format"] == "qcow2"
    assert answer["cluster-size"] == 128 << 10
    assert answer["format-specific"]["data"]["extended-l2"] is True
    for name in ("a", "b", "c"):
        assert guest.hash_of(name) == guest.hashes[name]
    assert [v.volname for v in it("list_images", None, None)] == [guest.volname]
    assert it.alloc(100, "qcow2") == "100/vm-100-disk-1.qcow2"


@pytest.mark.contract("C-088")
def test_snapshot_info(it: Dir, guest: Guest) -> None:
    found = it("volume_snapshot_info", guest.volname)
    directory = it.path(guest.volname).parent
    seen = {
        name: (entry.order, entry.parent, entry.child, entry.volname)
        for name, entry in found.items()
    }
    assert seen == {
        "current": (0, "c", None, "100/vm-100-disk-0.qcow2"),
        "c": (1, "b", "current", "100/snap-c-vm-100-disk-0.qcow2"),
        "b": (2, "a", "c", "100/snap-b-vm-100-disk-0.qcow2"),
        "a": (3, None, "b", "100/snap-a-vm-100-disk-0.qcow2"),
    }
    assert found["b"].file == str(directory / "snap-b-vm-100-disk-0.qcow2")
    assert {entry.virtual_size for entry in found.values()} == {4 * MIB}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_delete(guest: Guest, name: str) -> None:
    now = guest.hash()
    guest.it("volume_snapshot_delete", guest.volname, name, False)
    rest = [other for other in ("a", "b", "c") if other != name]
    assert guest.names() == [*rest, "current"]
    assert guest.hash() == now
    for other in rest:
        assert guest.hash_of(other) == guest.hashes[other]


def test_delete_all_one_after_the_other(guest: Guest) -> None:
    now = guest.hash()
    for name in ("b", "a", "c"):
        guest.it("volume_snapshot_delete", guest.volname, name, False)
    assert guest.hash() == now
    assert guest.names() == ["current"]
    assert guest.it.files() == ["100", "100/vm-100-disk-0.qcow2"]


def test_delete_under_a_running_guest_only_drops_the_file(guest: Guest) -> None:
    guest.it("volume_snapshot_delete", guest.volname, "b", True)
    assert not (guest.it.root / "images/100/snap-b-vm-100-disk-0.qcow2").exists()
    assert (guest.it.root / "images/100/snap-a-vm-100-disk-0.qcow2").exists()


@pytest.mark.contract("C-085")
@pytest.mark.parametrize("running", [False, True])
def test_delete_of_a_missing_snapshot(guest: Guest, running: bool) -> None:
    guest.it("volume_snapshot_delete", guest.volname, "nope", running)
    assert guest.names() == ["a", "b", "c", "current"]
    expected = f"snapshot 'nope' of volume '{guest.volname}' does not exist"
    assert guest.it.warnings() == [expected]


def test_a_file_outside_the_chain_is_not_touched(guest: Guest) -> None:
    stray = guest.it.root / "images/100/snap-x-vm-100-disk-0.qcow2"
    stray.touch()
    with pytest.raises(StorageError, match="is not part of the chain"):
        guest.it("volume_snapshot_delete", guest.volname, "x", False)
    assert stray.exists()


@pytest.mark.contract("C-086", "C-087")
def test_rollback(guest: Guest) -> None:
    guest.it("volume_rollback_is_possible", guest.volname, "c")
    with pytest.raises(RollbackBlocked, match="'a' is not most recent snapshot") as caught:
        guest.it("volume_rollback_is_possible", guest.volname, "a")
    assert caught.value.blockers == ["b", "c"]
    with pytest.raises(RollbackBlocked, match="snapshot 'x' does not exist"):
        guest.it("volume_rollback_is_possible", guest.volname, "x")
    guest.it("volume_snapshot_rollback", guest.volname, "c")
    assert guest.hash() == guest.hashes["c"]
    assert guest.names() == ["a", "b", "c", "current"]


def test_a_failed_rollback_keeps_the_live_image(guest: Guest) -> None:
    now = guest.hash()
    with pytest.raises(StorageError, match="can't allocate new volume"):
        guest.it("volume_snapshot_rollback", guest.volname, "x")
    assert guest.hash() == now
    assert len(guest.it.files()) == 5


@pytest.mark.contract("C-062")
def test_free_removes_the_whole_chain(guest: Guest) -> None:
    guest.it("free_image", guest.volname, False, "qcow2")
    assert guest.it.files() == []


def test_free_of_an_unreadable_chain(guest: Guest) -> None:
    guest.it.path(guest.volname).write_bytes(b"garbage")
    guest.it("free_image", guest.volname, False, "qcow2")
    assert not guest.it.path(guest.volname).exists()
    assert any("can't tell the snapshots" in line for line in guest.it.warnings())


def test_a_volume_with_snapshots_keeps_its_owner(guest: Guest) -> None:
    with pytest.raises(StorageError, match="we can't rename volume if a snapshot"):
        guest.it("rename_volume", guest.volname, 101, None)


def test_the_directory_can_move(guest: Guest, tmp_path: Path) -> None:
    now = guest.hash()
    guest.it.root.rename(tmp_path / "elsewhere")
    moved = Dir(tmp_path / "elsewhere", **CHAIN)
    assert disk_hash(moved.path(guest.volname), "qcow2", tmp_path) == now


def test_raw_disks_have_no_snapshots(it: Dir) -> None:
    volname = it.alloc(100, "raw")
    with pytest.raises(StorageError, match="can't snapshot this image format"):
        it("volume_snapshot", volname, "a")
    assert set(it("volume_snapshot_info", volname)) == {"current"}
    assert it("rename_volume", volname, 101, None) == "101/vm-101-disk-0.raw"


def test_rename_snapshot(guest: Guest) -> None:
    with pytest.raises(StorageError, match="target snapshot 'b' already exists"):
        guest.it("rename_snapshot", guest.volname, "current", "b")
    guest.it("rename_snapshot", guest.volname, "current", "d")
    assert not guest.it.path(guest.volname).exists()
    guest.it("rename_snapshot", guest.volname, "d", "current")
    assert guest.names() == ["a", "b", "c", "current"]


@pytest.mark.contract("C-066")
def test_resize_of_a_snapshot(guest: Guest) -> None:
    guest.it("volume_resize", guest.volname, 8 * MIB, False, "c")
    sizes = {
        name: entry.virtual_size
        for name, entry in guest.it("volume_snapshot_info", guest.volname).items()
    }
    assert sizes == {"a": 4 * MIB, "b": 4 * MIB, "c": 8 * MIB, "current": 4 * MIB}


def test_a_clone_can_have_snapshots(it: Dir, tmp_path: Path) -> None:
    base = it("create_base", it.alloc(9, "raw", 4 * MIB))
    try:
        clone = it("clone_image", base, 100, None)
        it("volume_snapshot", clone, "a")
        qemu_io(it.path(clone), "write -P 5 0 64k")
        now = disk_hash(it.path(clone), "qcow2", tmp_path)
        found = it("volume_snapshot_info", clone)
        assert (found["a"].parent, found["current"].parent) == (None, "a")
        it("volume_snapshot_delete", clone, "a", False)
        assert disk_hash(it.path(clone), "qcow2", tmp_path) == now
        assert info(it.path(clone))["backing-filename"] == "../9/base-9-disk-0.raw"
    finally:
        it("free_image", base, True, "raw")


@pytest.mark.contract("C-060")
def test_a_snapshot_that_fails_half_way_is_undone(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "m", "3m") as mount:
        it = Dir(mount, **CHAIN, preallocation="off")
        volname = it.alloc(100, "qcow2", MIB)
        before = disk_hash(it.path(volname), "qcow2", tmp_path)
        with (mount / "fill").open("wb") as fill:
            fill.write(bytes(os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize - 4096))
        with pytest.raises(
            StorageError, match=r"can't allocate new volume .* with a backing image"
        ):
            it("volume_snapshot", volname, "a")
        (mount / "fill").unlink()
        assert it.files() == ["100", "100/vm-100-disk-0.qcow2"]
        assert disk_hash(it.path(volname), "qcow2", tmp_path) == before


def test_a_broken_layer_is_told_and_kept(guest: Guest) -> None:
    guest.it.path(guest.volname).with_name("snap-b-vm-100-disk-0.qcow2").write_bytes(b"garbage")
    files = guest.it.files()
    with pytest.raises(StorageError):
        guest.it("volume_snapshot_delete", guest.volname, "c", False)
    assert guest.it.files() == files


def test_a_killed_rebase_keeps_every_snapshot(it: Dir, tmp_path: Path) -> None:
    volname = it.alloc(100, "qcow2", 512 * MIB)
    for name, pattern in (("a", 1), ("b", 2)):
        qemu_io(it.path(volname), f"write -P {pattern} 0 256M")
        it("volume_snapshot", volname, name)
    call = Call()
    began = threading.Timer(0.15, call.cancelled.set)
    began.start()
    try:
        it("volume_snapshot_delete", volname, "b", False, call=call)
    except Cancelled:
        assert set(it("volume_snapshot_info", volname)) == {"a", "b", "current"}
    began.join()
    check = subprocess.run(["qemu-img", "check", str(it.path(volname))], check=False)
    assert check.returncode in (0, 3)  # leaked clusters at worst
    qemu_io(it.path(volname), "read -P 2 0 256M")
