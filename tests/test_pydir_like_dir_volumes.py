# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The same calls on PVE's own ``dir`` and on ``pydir``: the life of volumes."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_util import GENUINE
from pair_util import Pair, listing, refused, walk
from pydir_util import MIB, PyDir

pytestmark = pytest.mark.skipif(not GENUINE, reason="needs genuine PVE modules")


def test_allocation(pair: Pair) -> None:
    for format_ in ("raw", "qcow2", "vmdk", "raw"):
        pair.same("vdisk_alloc", "<id>", 100, format_, None, 1024)
    pair.same("vdisk_alloc", "<id>", 100, "subvol", None, 0)
    for name in ("vm-100-cloudinit.qcow2", "vm-100-disk-9.qcow2", "other.qcow2"):
        for _ in range(2):
            pair.same("vdisk_alloc", "<id>", 100, "qcow2", name, 64)
    for size in (1, 3, 528, 1025):
        pair.same("vdisk_alloc", "<id>", 101, "raw", None, size)
    wrong: list[tuple[Any, ...]] = [
        ("raw", "vm-100-disk-0.qcow2", 64),
        ("raw", "vm-100-x", 64),
        ("subvol", None, 64),
        ("raw", "snap-a-b.qcow2", 64),
    ]
    for format_, name, size in wrong:
        pair.same("vdisk_alloc", "<id>", 100, format_, name, size, text=name != "snap-a-b.qcow2")
    theirs, ours = ([path.lstat().st_mode for path in walk(store.root)] for store in pair.both)
    assert ours == theirs
    listing(pair, "vdisk_list", "<id>")
    listing(pair, "vdisk_list", "<id>", 100)
    pair.same("volume_size_info", ":100/vm-100-disk-0.raw", 5)
    pair.same("volume_size_info", ":100/vm-100-disk-1.qcow2", 5)
    for volid in (
        ":100/vm-100-disk-0.raw",
        ":100/vm-100-cloudinit.qcow2",
        ":100/subvol-100-disk-4.subvol",
    ):
        pair.same("vdisk_free", volid)
    pair.same("vdisk_alloc", "<id>", 100, "raw", None, 1024)


def test_resize_and_rename(pair: Pair) -> None:
    for format_ in ("raw", "qcow2", "vmdk"):
        pair.same("vdisk_alloc", "<id>", 100, format_, None, 1024)
    for volid in (":100/vm-100-disk-0.raw", ":100/vm-100-disk-1.qcow2", ":100/vm-100-disk-2.vmdk"):
        for size, running in ((2 * MIB, 0), (4 * MIB, 1), (2 * MIB + 1, 0)):
            pair.same("volume_resize", volid, size, running)
        refused(pair, "volume_resize", volid, MIB, 0)
        pair.same("volume_size_info", volid, 5)
    assert pair.same("rename_volume", ":100/vm-100-disk-0.raw", 101, None)
    pair.same("rename_volume", ":100/vm-100-disk-1.qcow2", 101, "vm-101-mine.qcow2")
    pair.same("rename_volume", ":100/vm-100-disk-2.vmdk", 101, "vm-101-disk-0.vmdk")
    pair.same("rename_volume", ":101/vm-101-disk-0.vmdk", 101, "vm-101-disk-0.raw", text=False)
    listing(pair, "vdisk_list", "<id>")


def compare_info(pair: Pair, apiver: int, volid: str) -> None:
    """``pydir`` answers as ``dir`` does since APIVER 15, whatever the host.

    Before, ``dir`` added ``ext``, which only it reads, and called a file without a chain one.
    """
    theirs, ours = (pair.outcome(s, "volume_snapshot_info", volid).value for s in pair.both)
    assert isinstance(theirs, dict)
    assert isinstance(ours, dict)
    if apiver < 15 and list(theirs) == ["current"]:
        assert sorted(ours) == ["one", "three", "two"]
        return
    for info in (*theirs.values(), *ours.values()):
        info.pop("timestamp", None)
        if apiver < 15:
            info.pop("ext", None)
            info.pop("virtual-size", None)
        for key in [key for key, value in info.items() if value is None]:
            del info[key]
    assert ours == theirs


def test_snapshots(pair_of_either: Pair, pydir: PyDir) -> None:
    pair = pair_of_either
    volid = ":100/vm-100-disk-0.qcow2"
    pair.same("vdisk_alloc", "<id>", 100, "qcow2", None, 4096)
    for name in ("one", "two", "three"):
        pair.same("volume_snapshot", volid, name)
        pair.same("volume_rollback_is_possible", volid, "one")
    for name in ("one", "three", "none"):
        pair.same("volume_rollback_is_possible", volid, name, text=name != "none")
    compare_info(pair, pydir.apiver, volid)
    pair.same("volume_snapshot_rollback", volid, "three")
    pair.same("volume_snapshot_rollback", volid, "one")
    pair.same("path", volid, "one", context="list")
    pair.same("volume_snapshot_delete", volid, "two", 0)
    pair.same("volume_snapshot_delete", volid, "one", 0)
    listing(pair, "vdisk_list", "<id>")
    for name in ("vm-100-disk-1.raw", "vm-100-disk-2.vmdk"):
        pair.same("vdisk_alloc", "<id>", 100, name.split(".")[1], name, 64)
        for method in ("volume_snapshot", "volume_snapshot_rollback", "volume_snapshot_delete"):
            pair.same(method, f":100/{name}", "one")
    pair.same("rename_volume", volid, 102, None)
    pair.same("vdisk_free", volid)


def test_templates_and_clones(pair: Pair) -> None:
    for format_ in ("raw", "qcow2", "vmdk"):
        pair.same("vdisk_alloc", "<id>", 100, format_, None, 1024)
    pair.same("vdisk_clone", ":100/vm-100-disk-0.raw", 101)
    for name in ("disk-0.raw", "disk-1.qcow2", "disk-2.vmdk"):
        pair.same("vdisk_create_base", f":100/vm-100-{name}")
        pair.same("vdisk_clone", f":100/base-100-{name}", 101, "snap")
        pair.same("vdisk_clone", f":100/base-100-{name}", 101)
        pair.same("vdisk_create_base", f":100/base-100-{name}")
        pair.same("volume_is_base_and_used", f":100/base-100-{name}")
        pair.same("vdisk_free", f":100/base-100-{name}")
    listing(pair, "vdisk_list", "<id>")
    listing(pair, "vdisk_list", "<id>", 101)
    clone = ":100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2"
    pair.same("vdisk_create_base", clone)
    pair.same("vdisk_clone", ":100/base-100-disk-0.raw/101/base-101-disk-0.qcow2", 102)
    pair.same("rename_volume", ":100/base-100-disk-1.qcow2/101/vm-101-disk-1.qcow2", 103, None)
    listing(pair, "vdisk_list", "<id>")
    pair.same("vdisk_free", ":101/base-101-disk-0.qcow2/102/vm-102-disk-0.qcow2")
    pair.same("vdisk_free", ":100/base-100-disk-0.raw/101/base-101-disk-0.qcow2")
    pair.same("vdisk_free", ":100/base-100-disk-0.raw")
    pair.same("vdisk_create_base", ":iso/a.iso")
    pair.same("vdisk_clone", ":iso/a.iso", 101)


OPTIONS: list[Any] = [{"hints": {}}, {"snapshot-name": "one", "hints": {}}, None]


def test_attaching(pair_of_either: Pair) -> None:
    pair = pair_of_either
    for format_ in ("raw", "qcow2"):
        pair.same("vdisk_alloc", "<id>", 100, format_, None, 1024)
    pair.same("volume_snapshot", ":100/vm-100-disk-1.qcow2", "one")
    volids = [":100/vm-100-disk-0.raw", ":100/vm-100-disk-1.qcow2", ":100/vm-100-disk-5.raw"]
    for volid in volids:
        pair.same("map_volume", volid)
        pair.same("unmap_volume", volid)
        for options in OPTIONS:
            for machine in ("10.0+pve0", None):
                pair.same("qemu_blockdev_options", volid, machine, options)
    for store in pair.both:
        for volid in volids:
            result = store.run("activate_volumes", [f"{store.id}{volid}"])
            assert (result.error is None) == ("disk-5" not in volid)
