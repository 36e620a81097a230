# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pydir`` as a storage: activation, status, formats, through PVE::Storage (contract 9, C)."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge_util import Node
from directory_util import small_filesystem
from probe_util import Probe
from pydir_util import EXTRA, PyDir, Store

_LIBC = ctypes.CDLL(None, use_errno=True)
_DETACH = 2


@contextmanager
def dead_filesystem(where: Path) -> Iterator[Path]:
    """A mount that answers nothing, as one of a server that is gone."""
    where.mkdir()
    try:
        daemon = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pytest.skip("no /dev/fuse")
    options = f"fd={daemon},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _LIBC.mount(b"dead", str(where).encode(), b"fuse", 0, options):
        os.close(daemon)
        pytest.skip("mounting needs root")
    try:
        yield where
    finally:
        os.close(daemon)  # whoever waits for an answer gets an error now,
        # and the last of them may still be on its way out
        assert _LIBC.umount2(str(where).encode(), _DETACH) == 0


@pytest.mark.contract("C-035")
@pytest.mark.method("activate_storage", "check_connection")
def test_activation_creates_what_is_missing_and_is_cheap_afterwards(
    pydir: PyDir, store: Store
) -> None:
    store("activate_storage", store.id)
    directories = sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*"))
    assert directories == [
        *("dump", "images", "import", "private", "snippets"),
        *("template", "template/cache", "template/iso"),
    ]
    times = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    for _ in range(10):
        began = time.monotonic()
        store("activate_storage", store.id)
        assert time.monotonic() - began < 1
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == times
    mine = [c for c in pydir.server.calls("activate_storage") if c["storeid"] == store.id]
    assert len(mine) == 11


@pytest.mark.contract("C-036")
@pytest.mark.method("check_connection")
def test_a_backend_that_cannot_be_reached(probe: Probe) -> None:
    probe.node.add("gone", "probe", probe_mode="offline")
    probe.node.add("there", "probe")
    began = time.monotonic()
    result = probe.node.perl("PVE::Storage::activate_storage(PVE::Storage::config(), 'gone')")
    assert time.monotonic() - began < 5
    assert result.error == "storage 'gone' is not online\n"
    probe.node.perl("PVE::Storage::activate_storage(PVE::Storage::config(), 'there')").ok()
    assert [entry["storeid"] for entry in probe.seen("activate_storage")] == ["there"]


@pytest.mark.contract("C-037")
@pytest.mark.method("status")
def test_a_file_system_that_hangs_holds_nobody_up(
    pydir: PyDir, store: Store, tmp_path: Path
) -> None:
    with dead_filesystem(tmp_path / "dead") as root:
        dead = pydir.store(root)
        for _ in range(2):
            began = time.monotonic()
            result = store.run("storage_info")
            assert time.monotonic() - began < 5
            rows = result.ok()
            assert (rows[dead.id]["active"], rows[store.id]["active"]) == (0, 1)
            assert f"'{dead.id}'" in result.stderr


@pytest.mark.contract("C-038")
@pytest.mark.method("status")
def test_status(store: Store) -> None:
    row = store("storage_info")[store.id]
    assert row["active"] == 1
    assert row["type"] == "pydir"
    assert row["total"] >= row["avail"] >= 0
    assert row["used"] > 0
    result = store.node.perl(
        """
        my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $ARGS[0]);
        [PVE::Storage::Plugin->lookup('pydir')->status($ARGS[0], $scfg, {})];
        """,
        store.id,
    )
    fs = os.statvfs(store.root)
    total, _, _, active = result.ok()
    assert (total, active) == (fs.f_blocks * fs.f_frsize, 1)


@pytest.mark.contract("C-037", "C-038")
@pytest.mark.method("status", "activate_storage")
def test_a_mount_point_counts_only_while_mounted(pydir: PyDir, tmp_path: Path) -> None:
    store = pydir.store(tmp_path / "mnt", is_mountpoint="yes")
    store.root.mkdir()
    expected = (
        f"unable to activate storage '{store.id}' - "
        f"directory is expected to be a mount point but is not mounted: '{store.root}'"
    )
    assert store.error("activate_storage", store.id) == expected
    assert store("storage_info")[store.id]["active"] == 0
    assert list(store.root.iterdir()) == []
    with small_filesystem(store.root, "8m"):
        row = store("storage_info")[store.id]
        assert (row["total"], row["active"]) == (8 << 20, 1)


def test_a_missing_directory(pydir: PyDir, tmp_path: Path) -> None:
    store = pydir.store(tmp_path / "none", create_base_path=0)
    text = f"directory '{store.root}' does not exist or is unreachable"
    assert store.error("activate_storage", store.id) == (
        f"unable to activate storage '{store.id}' - {text}"
    )
    assert not store.root.exists()


def test_directories_of_content_are_distinct_and_as_configured(
    pydir: PyDir, tmp_path: Path
) -> None:
    dirs = "iso=my/iso,images=disks"
    store = pydir.store(tmp_path / "a", content="iso,images", content_dirs=dirs)
    volid = store.alloc()
    assert store("path", volid) == f"{store.root}/disks/100/vm-100-disk-0.raw"
    assert (store.root / "my/iso").is_dir()
    twice = pydir.store(tmp_path / "b", content="iso,images", content_dirs="iso=x,images=x")
    assert "multiple content types" in twice.error("activate_storage", twice.id)


@pytest.mark.contract("C-039", "C-074")
@pytest.mark.method("deactivate_volume", "deactivate_storage", "unmap_volume")
def test_deactivation_needs_no_activation(store: Store) -> None:
    volid = store.alloc()
    with store.node.session() as fresh:
        for given in (volid, store.volid("100/vm-100-disk-9.raw")):
            code = "PVE::Storage::deactivate_volumes(PVE::Storage::config(), [$ARGS[0]]); 1"
            assert fresh.run(code, given).ok() == 1
        code = "PVE::Storage::unmap_volume(PVE::Storage::config(), $ARGS[0])"
        assert fresh.run(code, volid).ok()
        code = "PVE::Storage::deactivate_storage(PVE::Storage::config(), $ARGS[0]); 1"
        assert fresh.run(code, store.id).ok() == 1
    assert store.file(volid).exists()


@pytest.mark.contract("C-040")
def test_a_disabled_storage_is_left_alone(pydir: PyDir, tmp_path: Path) -> None:
    store = pydir.store(tmp_path / "off", disable="1")
    row = store("storage_info")[store.id]
    assert (row["enabled"], row["active"]) == (0, 0)
    assert store.error("activate_storage", store.id) == f"storage '{store.id}' is disabled"
    assert "is disabled" in store.error("vdisk_alloc", store.id, 100, "raw", None, 1024)
    assert "is disabled" in store.error("vdisk_list", store.id)
    assert store.id not in store("vdisk_list")
    assert [call for call in pydir.server.calls() if call["storeid"] == store.id] == []
    assert not store.root.exists()


IDENTITY = """
    my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $ARGS[0]);
    return PVE::Storage::Plugin->lookup($scfg->{type})->get_identity($scfg, $ARGS[0]);
"""


@pytest.mark.contract("C-041")
@pytest.mark.method("get_identity")
def test_identity(tmp_path: Path) -> None:
    """Of a plugin that has one: the same from two nodes, by two ways to the same data."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "uuid").write_text("4c8f3a")
    (tmp_path / "way").symlink_to(data)
    answers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with Node(tmp_path / name) as node:
            node.serve(EXTRA)
            node.add("ee", "extra", path=data if name == "a" else tmp_path / "way")
            answers.append(node.perl(IDENTITY, "ee").ok())
            node.storage_cfg(node.storage_cfg().replace(str(data), str(tmp_path / "way")))
            answers.append(node.perl(IDENTITY, "ee").ok())
            assert node.servers[0].calls("activate_storage") == []
            (data / "uuid").rename(data / "hidden")
            assert node.perl(IDENTITY, "ee").error == "this storage has no identity yet\n"
            (data / "hidden").rename(data / "uuid")
    assert answers == ["4c8f3a"] * 4


@pytest.mark.contract("C-041")
def test_no_identity(store: Store) -> None:
    result = store.node.perl(IDENTITY, store.id)
    assert result.error is not None
    assert "get_identity" in result.error or "not implemented" in result.error


@pytest.mark.method("get_formats", "storage_can_replicate")
def test_formats(pydir: PyDir, tmp_path: Path) -> None:
    plain = pydir.store(tmp_path / "plain")
    other = pydir.store(tmp_path / "other", format="qcow2")
    rows = plain("storage_info", None, 1)
    for store, default in ((plain, "raw"), (other, "qcow2")):
        valid, found = rows[store.id]["format"][:2]
        assert found == default
        assert {name for name, allowed in valid.items() if allowed} == {
            *("raw", "qcow2", "vmdk", "subvol")
        }
        assert store("vdisk_alloc", store.id, 100, None, None, 64).endswith(f".{default}")
        assert store("storage_default_format", store.id) == default
        assert not store("storage_can_replicate", store.id, "raw")


@pytest.mark.contract("C-076")
def test_two_nodes_share_a_volume(pydir: PyDir, store: Store, tmp_path: Path) -> None:
    """Node B, with a server of its own, uses the directory that A uses."""
    volid = store.alloc(100, "qcow2")
    store("activate_volumes", [volid])
    with Node(tmp_path) as node:
        PyDir(node)
        node.storage_cfg(store.node.storage_cfg())
        there = Store(node, store.id, store.root)
        there("activate_volumes", [volid])
        store("deactivate_volumes", [volid])
        there.write(there.volid(volid.split(":")[1]), 7)
        assert there.size(volid) == 1 << 20
        there("deactivate_volumes", [volid])
    assert store.reads(volid, 7)
