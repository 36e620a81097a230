# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots inside qcow2 files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from directory_util import MIB, Dir, disk_hash, qemu_io
from pve_pybridge import StorageError


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "storage")


@pytest.mark.contract("C-084", "C-087", "C-090")
@pytest.mark.parametrize(
    "name", ["a", "vzdump", "__migration__", "x" * 40, "a-b_c", "__replicate_100-0_1700000000__"]
)
def test_snapshot_and_rollback(it: Dir, tmp_path: Path, name: str) -> None:
    volname = it.alloc(100, "qcow2", 4 * MIB)
    path = it.path(volname)
    it("volume_snapshot", volname, "older")
    qemu_io(path, "write -P 1 0 64k")
    before = disk_hash(path, "qcow2", tmp_path)
    it("volume_snapshot", volname, name)
    qemu_io(path, "write -P 2 0 64k")
    assert disk_hash(path, "qcow2", tmp_path) != before
    it("volume_rollback_is_possible", volname, name)
    it("volume_rollback_is_possible", volname, "older")
    it("volume_snapshot_rollback", volname, name)
    assert disk_hash(path, "qcow2", tmp_path) == before
    assert set(it("volume_snapshot_info", volname)) == {"older", name}


@pytest.mark.contract("C-088")
def test_snapshot_info(it: Dir) -> None:
    volname, raw = it.alloc(100, "qcow2"), it.alloc(100, "raw")
    assert it("volume_snapshot_info", volname) == {}
    assert it("volume_snapshot_info", raw) == {}
    it("volume_snapshot", volname, "a")
    assert abs(it("volume_snapshot_info", volname)["a"].timestamp - time.time()) < 60
    with pytest.raises(StorageError):
        it("volume_snapshot_info", "100/vm-100-disk-9.qcow2")


@pytest.mark.contract("C-085")
def test_delete_twice(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    it("volume_snapshot", volname, "a")
    it("volume_snapshot_delete", volname, "a", True)  # QEMU does it itself
    assert set(it("volume_snapshot_info", volname)) == {"a"}
    it("volume_snapshot_delete", volname, "a", False)
    assert it("volume_snapshot_info", volname) == {}
    it("volume_snapshot_delete", volname, "a", False)
    assert it.warnings() == [f"snapshot 'a' of volume '{volname}' does not exist"]


@pytest.mark.parametrize("format_", ["raw", "vmdk"])
def test_other_formats_have_no_snapshots(it: Dir, format_: str) -> None:
    volname = it.alloc(100, format_)
    for method, message in (
        ("volume_snapshot", "can't snapshot this image format"),
        ("volume_snapshot_delete", "can't delete snapshot for this image format"),
        ("volume_snapshot_rollback", "can't rollback snapshot this image format"),
    ):
        with pytest.raises(StorageError, match=message):
            it(method, volname, "a")


def test_rollback_to_a_missing_snapshot_fails(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    with pytest.raises(StorageError, match="qemu-img"):
        it("volume_snapshot_rollback", volname, "a")


def test_the_failure_of_a_locked_image_is_told(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    user = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(it.path(volname))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout is not None
    user.stdout.read(1)
    try:
        with pytest.raises(StorageError, match="lock"):
            it("volume_snapshot", volname, "a")
    finally:
        user.communicate(b"quit\n", timeout=10)
    assert it("volume_snapshot_info", volname) == {}


def test_a_rename_needs_a_chain(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    with pytest.raises(StorageError, match="target snapshot 'b' already exists"):
        it("rename_snapshot", volname, "a", "b")
