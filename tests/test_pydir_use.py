# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Activating and attaching ``pydir`` volumes, through PVE::Storage (contract 9, F)."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from pydir_util import EXTRA, PyDir, Store, qemu_io

FULL = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 1}
HINTS: dict[str, Any] = {"hints": {}}
GENTLE = {"guest-is-windows": 0, "plugin-may-deactivate-volume": 0}


@pytest.fixture
def devices(node: Node, tmp_path: Path) -> Store:
    """A storage that must be activated: its devices are links below ``dev``."""
    node.serve(EXTRA)
    node.add("ee", "extra", path=tmp_path / "data")
    return Store(node, "ee", tmp_path / "data")


@pytest.mark.contract("C-072", "C-073", "C-074")
@pytest.mark.method("activate_volume", "deactivate_volume")
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_active_means_readable_and_writable(store: Store, format_: str) -> None:
    volid = store.alloc(100, format_)
    for _ in range(2):
        store("activate_volumes", [volid])
    store.write(volid, 5)
    assert store.reads(volid, 5)
    for _ in range(2):
        store("deactivate_volumes", [volid])
    assert store.error("activate_volumes", [store.volid("100/vm-100-disk-7.raw")]) == (
        f"volume '{store.id}:100/vm-100-disk-7.raw' does not exist"
    )


@pytest.mark.contract("C-072", "C-074", "C-075")
@pytest.mark.method("deactivate_volume", "activate_volume")
def test_devices_come_and_go(devices: Store) -> None:
    volid = devices.alloc()
    device = devices.root / "dev/vm-100-disk-0.raw"
    for _ in range(2):
        devices("activate_volumes", [volid])
    assert device.is_symlink()
    with device.open("r+b") as user:
        fcntl.flock(user, fcntl.LOCK_EX)
        result = devices.run("deactivate_volumes", [volid])
        assert result.error is not None
        assert volid in result.error
        assert "device vm-100-disk-0.raw is busy" in result.stderr
        user.write(b"still usable")
    assert device.read_bytes().startswith(b"still usable")
    for _ in range(2):
        devices("deactivate_volumes", [volid])
    assert not device.is_symlink()


@pytest.mark.contract("C-077")
@pytest.mark.parametrize("hints", [None, {}, GENTLE, FULL])
def test_any_hints(store: Store, hints: dict[str, int] | None) -> None:
    volid = store.alloc()
    for _ in range(2):
        store("activate_volumes", [volid], None, hints)
        assert store("map_volume", volid, None, hints) == str(store.file(volid))


@pytest.mark.contract("C-077", "C-078")
@pytest.mark.method("map_volume", "unmap_volume")
def test_hints_of_an_active_volume(devices: Store) -> None:
    if devices.node.perl("PVE::Storage::APIVER()").ok() < 13:
        pytest.skip("no hints before APIVER 13")
    volid = devices.alloc()
    device = devices.root / "dev/vm-100-disk-0.raw"
    devices("activate_volumes", [volid])

    def identity() -> int:
        return device.lstat().st_ctime_ns

    first = identity()
    result = devices.run("activate_volumes", [volid], None, {**GENTLE, "guest-is-windows": 1})
    assert result.error is None
    assert "hint 'guest-is-windows' can't be applied" in result.stderr
    assert identity() == first
    devices("map_volume", volid, None, FULL)
    assert identity() != first


@pytest.mark.contract("C-079")
@pytest.mark.method("map_volume", "unmap_volume")
def test_mapping(store: Store, devices: Store) -> None:
    volid = store.alloc()
    given: list[list[Any]] = [[], [None], [{}], [FULL]]
    for hints in given:
        assert store("map_volume", volid, None, *hints) == str(store.file(volid))
    assert store("unmap_volume", volid)
    mapped = devices.alloc()
    for release in (["unmap_volume", mapped], ["deactivate_volumes", [mapped]]):
        device = Path(devices("map_volume", mapped))
        assert device.exists()
        devices(*release)
        assert not device.is_symlink()


@pytest.mark.contract("C-080", "C-082")
@pytest.mark.method("qemu_blockdev_options", "path", "activate_volume")
def test_snapshots_are_theirs_alone(pydir: PyDir, store: Store, tmp_path: Path) -> None:
    raw = store.alloc(100, "raw")
    text = "can't snapshot this image format"
    assert store.error("path", raw, "snap") == text
    assert store.error("activate_volumes", [raw], "snap") == text
    assert store.error("map_volume", raw, "snap") == text
    inside = store.alloc(100, "qcow2")
    store("volume_snapshot", inside, "snap")
    assert store("path", inside, "snap") == str(store.file(inside))
    store("activate_volumes", [inside], "snap")
    chained = pydir.store(tmp_path / "chain", snapshot_as_volume_chain=1)
    volid = chained.alloc(100, "qcow2")
    chained.write(volid, 1)
    chained("volume_snapshot", volid, "snap")
    chained.write(volid, 2)
    path = chained("path", volid, "snap")
    assert path == f"{chained.root}/images/100/snap-snap-vm-100-disk-0.qcow2"
    chained("activate_volumes", [volid], "snap")
    assert qemu_io(Path(path), "read -P 1 0 1M", "-r")
    if pydir.can("qemu_blockdev_options"):
        options = {"snapshot-name": "snap", "hints": {}}
        live = store.error("qemu_blockdev_options", inside, "10.0+pve0", options)
        assert live == "cannot attach only the snapshot of a 'qcow2' image"
        found = chained("qemu_blockdev_options", volid, "10.0+pve0", options)
        assert found == {"driver": "file", "filename": path}


@pytest.mark.contract("C-081")
@pytest.mark.method("qemu_blockdev_options")
@pytest.mark.parametrize("machine", ["10.0+pve0", "pc-q35-10.1", None])
def test_blockdev_options_open_in_qemu(pydir: PyDir, store: Store, machine: str | None) -> None:
    if not pydir.can("qemu_blockdev_options"):
        pytest.skip("no qemu_blockdev_options before APIVER 12")
    for format_ in ("raw", "qcow2"):
        volid = store.alloc(100, format_)
        for hints in (HINTS, {"hints": {"efi-disk": 1}}):
            found: dict[str, Any] = store("qemu_blockdev_options", volid, machine, hints)
            assert found == {"driver": "file", "filename": str(store.file(volid))}
        image = "json:" + json.dumps({"driver": format_, "file": found})
        command = ["qemu-io", "-c", "write -P 3 0 64k", "-c", "read -P 3 0 64k", image]
        subprocess.run(command, check=True, capture_output=True)
    missing = store.volid("100/vm-100-disk-9.raw")
    assert "No such file" in store.error("qemu_blockdev_options", missing, machine, HINTS)


@pytest.mark.contract("C-083")
@pytest.mark.method("volume_qemu_snapshot_method")
def test_who_takes_snapshots_of_a_running_guest(pydir: PyDir, tmp_path: Path) -> None:
    if not pydir.can("volume_qemu_snapshot_method"):
        pytest.skip("no volume_qemu_snapshot_method before APIVER 12")
    plain = pydir.store(tmp_path / "plain")
    chain = pydir.store(tmp_path / "chain", snapshot_as_volume_chain=1)
    before = len(pydir.server.calls())
    answers = [
        store("volume_qemu_snapshot_method", store.volid(f"100/vm-100-disk-0.{format_}"))
        for store in (plain, chain)
        for format_ in ("raw", "qcow2", "vmdk")
    ]
    assert answers == ["storage", "qemu", "storage", "storage", "mixed", "storage"]
    assert len(pydir.server.calls()) == before
    assert not plain.root.exists()
