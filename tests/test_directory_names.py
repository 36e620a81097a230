# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Names, paths, configuration and the storage's own life cycle."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from directory_util import Dir, PyDir, small_filesystem
from probe_util import wait_until
from pve_pybridge import (
    DirectoryConfig,
    DirectoryPlugin,
    Hints,
    ParameterError,
    Storage,
    StorageError,
)
from pve_pybridge.config import options_of
from pve_pybridge.directory import probe
from pve_pybridge.directory.config import checked_path
from pve_pybridge.names import answer
from pve_pybridge.plugin import config_class


def test_the_options_are_those_of_pves_directory() -> None:
    names = {item.property for item in options_of(DirectoryConfig, "pydir")}
    assert names == {
        *("path", "content-dirs", "format", "preallocation", "mkdir", "create-base-path"),
        *("create-subdirs", "is_mountpoint", "snapshot-as-volume-chain", "bwlimit", "content"),
        *("nodes", "shared", "disable", "prune-backups", "max-protected-backups"),
    }
    fixed = {item.property for item in options_of(DirectoryConfig, "pydir") if item.option.fixed}
    assert fixed == {"path", "snapshot-as-volume-chain"}


def test_an_unparametrised_subclass_keeps_the_configuration() -> None:
    class Mine(DirectoryPlugin):  # type: ignore[type-arg]  # on purpose
        type = "mine"

    assert config_class(Mine) is DirectoryConfig


@pytest.mark.parametrize(
    ("given", "stored"),
    [("/mnt/data", "/mnt/data"), ("/mnt//data/./x/", "/mnt/data/x"), ("/a/../b", "/a/../b")],
)
def test_on_add_stores_a_canonical_path(tmp_path: Path, given: str, stored: str) -> None:
    scfg: dict[str, object] = {"path": given}
    Dir(tmp_path)("on_add_hook", scfg=scfg, sensitive={})
    assert scfg["path"] == stored


@pytest.mark.parametrize(
    "path", ["relative", "/with space", "/", "/ümlaut", "", "/new\nline", "/a\n"]
)
def test_on_add_refuses_paths_pve_cannot_handle(path: str) -> None:
    with pytest.raises(ParameterError) as caught:
        checked_path(path)
    assert caught.value.errors == {"path": f"illegal path for directory storage: {path}"}


@pytest.mark.contract("C-053", "C-054")
@pytest.mark.parametrize(
    ("volname", "expected"),
    [
        ("100/vm-100-disk-0.raw", "images/100/vm-100-disk-0.raw"),
        ("9/base-9-disk-0.raw/100/vm-100-disk-0.qcow2", "images/100/vm-100-disk-0.qcow2"),
        ("iso/a b.iso", "template/iso/a b.iso"),
        ("vztmpl/debian.tar.zst", "template/cache/debian.tar.zst"),
        ("backup/vzdump-lxc-7-x.tar", "dump/vzdump-lxc-7-x.tar"),
        ("snippets/höök.pl", "snippets/höök.pl"),
        ("import/a.ova", "import/a.ova"),
    ],
)
def test_path(tmp_path: Path, volname: str, expected: str) -> None:
    assert Dir(tmp_path).path(volname) == tmp_path / expected


def test_content_dirs_move_a_content_type(tmp_path: Path) -> None:
    it = Dir(tmp_path, **{"content-dirs": {"iso": "cd", "images": "disks"}})
    assert it.path("iso/a.iso") == tmp_path / "cd/a.iso"
    assert it.path("100/vm-100-disk-0.raw") == tmp_path / "disks/100/vm-100-disk-0.raw"


def test_path_of_a_snapshot(tmp_path: Path) -> None:
    plain, chain = Dir(tmp_path), Dir(tmp_path, **{"snapshot-as-volume-chain": 1})
    name = "100/vm-100-disk-0.qcow2"
    assert plain.plugin.path(plain.storage(), name, "a") == str(tmp_path / "images" / name)
    assert chain.plugin.path(chain.storage(), name, "a") == str(
        tmp_path / "images/100/snap-a-vm-100-disk-0.qcow2"
    )
    assert chain.plugin.path(chain.storage(), name, "current") == str(tmp_path / "images" / name)
    with pytest.raises(StorageError, match="can't snapshot this image format"):
        plain.plugin.path(plain.storage(), "100/vm-100-disk-0.raw", "a")


@pytest.mark.contract("C-042")
@pytest.mark.parametrize(
    "volname",
    [
        "",
        "100",
        "100/",
        "x/vm-1.raw",
        "100/a b.raw",
        "100/../../etc/passwd",
        "iso/a/../b.iso",
        "100/snap-a-vm-100-disk-0.qcow2",
        "snippets/..",
        "import/a;b.ova",
        "backup/a.zip",
    ],
)
def test_foreign_names_are_refused(volname: str) -> None:
    with pytest.raises(StorageError):
        PyDir().parse_volname(volname)


def _feature(**facts: object) -> bool:
    return bool(answer(PyDir.rules["volume_has_feature"], facts))


@pytest.mark.contract("C-069")
def test_features() -> None:
    images = ["raw", "qcow2", "vmdk"]
    wanted: dict[tuple[str, str], list[str]] = {
        ("snapshot", "current"): ["qcow2"],
        ("snapshot", "snap"): ["qcow2"],
        ("clone", "base"): images,
        ("template", "current"): [*images, "subvol"],
        ("copy", "base"): images,
        ("copy", "current"): images,
        ("copy", "snap"): ["qcow2"],
        ("sparseinit", "base"): images,
        ("sparseinit", "current"): images,
        ("rename", "current"): images,
    }
    for feature in ("snapshot", "clone", "template", "copy", "sparseinit", "rename", "replicate"):
        for state in ("current", "base", "snap"):
            for format_ in (*images, "subvol"):
                expected = format_ in wanted.get((feature, state), [])
                facts = {"feature": feature, "state": state, "format": format_}
                assert _feature(**facts) == expected, facts


def test_a_clone_is_refused_where_qcow2_is_not_wanted() -> None:
    facts = {"feature": "clone", "state": "base", "format": "raw"}
    assert _feature(**facts)
    assert _feature(**facts, target_format=["raw", "qcow2"])
    assert not _feature(**facts, target_format=["raw"])


def _streams(method: str, **facts: object) -> object:
    return answer(PyDir.rules[method], facts)


@pytest.mark.contract("C-017")
@pytest.mark.parametrize("method", ["volume_export_formats", "volume_import_formats"])
def test_stream_formats(method: str) -> None:
    assert _streams(method, vtype="images", format="raw") == ["raw+size"]
    assert _streams(method, vtype="images", format="qcow2") == ["raw+size"]
    assert _streams(method, vtype="iso", format="raw") == ["raw+size"]
    assert _streams(method, vtype="backup", format="raw") == []
    assert _streams(method, vtype="images", format="subvol") == ["tar+size"]
    assert _streams(method, vtype="images", format="qcow2", with_snapshots=True) == ["qcow2+size"]
    assert _streams(method, vtype="images", format="raw", with_snapshots=True) == []
    assert _streams(method, vtype="images", format="raw", base_snapshot=True) == []
    expected = [] if method == "volume_export_formats" else ["raw+size"]
    assert _streams(method, vtype="images", format="raw", snapshot=True) == expected


@pytest.mark.contract("C-083")
def test_snapshot_method() -> None:
    rules = PyDir.rules["volume_qemu_snapshot_method"]
    chain = {"option:snapshot-as-volume-chain": 1}
    assert answer(rules, {"format": "raw"}) == "storage"
    assert answer(rules, {"format": "raw", **chain}) == "storage"
    assert answer(rules, {"format": "qcow2"}) == "qemu"
    assert answer(rules, {"format": "qcow2", **chain}) == "mixed"


@pytest.mark.contract("C-035")
def test_activation_creates_what_the_content_needs(tmp_path: Path) -> None:
    it = Dir(tmp_path / "new" / "storage")
    for _ in range(10):
        it("activate_storage")
    made = sorted(str(p.relative_to(it.root)) for p in it.root.rglob("*"))
    assert made == [
        *("dump", "images", "import", "private", "snippets"),
        *("template", "template/cache", "template/iso"),
    ]


@pytest.mark.parametrize("option", ["create-subdirs", "mkdir"])
def test_activation_creates_no_subdirs_when_told(tmp_path: Path, option: str) -> None:
    Dir(tmp_path, **{option: 0})
    assert list(tmp_path.iterdir()) == []


def test_container_content_brings_the_dump_directory(tmp_path: Path) -> None:
    Dir(tmp_path, content={"rootdir": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dump", "private"]


def test_activation_without_content_creates_only_the_base(tmp_path: Path) -> None:
    Dir(tmp_path / "base", content={})
    assert list((tmp_path / "base").iterdir()) == []


@pytest.mark.parametrize("options", [{"create-base-path": 0}, {"mkdir": 0}])
def test_a_missing_base_is_an_error_when_not_created(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(StorageError, match="does not exist or is unreachable"):
        Dir(tmp_path / "missing", **options)
    assert not (tmp_path / "missing").exists()


def test_a_file_as_base_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="does not exist or is unreachable"):
        Dir(tmp_path / "file")


def test_a_directory_for_two_content_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"uses directory .*/template/iso for multiple content"):
        Dir(tmp_path, **{"content-dirs": {"vztmpl": "template/iso"}})


def test_content_none_activates(tmp_path: Path) -> None:
    Dir(tmp_path, content={"none": 1})


def test_a_read_only_directory_is_told_clearly(tmp_path: Path) -> None:
    with (
        small_filesystem(tmp_path / "m", read_only=True) as mount,
        pytest.raises(StorageError, match=r"failed to create content directory .*read and write"),
    ):
        Dir(mount)


@pytest.mark.contract("C-037", "C-038")
def test_a_mount_point_counts_only_while_mounted(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "m v")
    (tmp_path / "m v").mkdir()
    unmounted = Dir(tmp_path)
    unmounted.options = {"path": str(link), "is_mountpoint": "yes"}
    assert unmounted("status") is None
    with pytest.raises(StorageError, match="expected to be a mount point but is not mounted: '"):
        unmounted("activate_storage")
    assert list((tmp_path / "m v").iterdir()) == []
    with small_filesystem(tmp_path / "m v", "8m"):
        unmounted("activate_storage")
        status = unmounted("status")
        assert status.total == 8 << 20
        assert status.total == status.used + status.avail


@pytest.mark.parametrize("text", ["no", "0", "off", "False"])
def test_is_mountpoint_may_say_no(tmp_path: Path, text: str) -> None:
    assert Dir(tmp_path, is_mountpoint=text)("status") is not None


def test_another_path_can_be_the_mount_point(tmp_path: Path) -> None:
    assert Dir(tmp_path, is_mountpoint="/proc")("status") is not None
    with pytest.raises(StorageError, match="not mounted: '/nowhere'"):
        Dir(tmp_path, is_mountpoint="/nowhere")


def test_status_of_a_missing_directory_is_inactive(tmp_path: Path) -> None:
    it = Dir(tmp_path)
    it.options["path"] = str(tmp_path / "gone")
    assert it("status") is None


def test_status_counts_like_df(tmp_path: Path) -> None:
    fs = os.statvfs(tmp_path)
    status = Dir(tmp_path)("status")
    assert status.active
    assert abs(status.used - (fs.f_blocks - fs.f_bfree) * fs.f_frsize) < 64 << 20


@pytest.mark.contract("C-073", "C-077", "C-079")
def test_volumes_need_no_activation_but_must_exist(tmp_path: Path) -> None:
    it = Dir(tmp_path)
    volname = it.alloc(100, "raw")
    for hints in (Hints(), Hints({"guest-is-windows": 1}), None):
        it("activate_volume", volname, None, hints)
        assert it("map_volume", volname, None, hints) == str(it.path(volname))
    with pytest.raises(StorageError, match=r"volume 's:100/vm-100-disk-1\.raw' does not exist"):
        it("activate_volume", "100/vm-100-disk-1.raw", None, Hints())


@pytest.mark.contract("C-081")
def test_blockdev_options(tmp_path: Path) -> None:
    it = Dir(tmp_path)
    volname = it.alloc(100, "raw")
    for version in ("10.0+pve0", "pc-q35-10.1", None):
        assert it("qemu_blockdev_options", volname, version, {}) == {
            "driver": "file",
            "filename": str(it.path(volname)),
        }
    device = it.root / "images/100/vm-100-disk-9.raw"
    device.symlink_to("/dev/null")
    answer = it("qemu_blockdev_options", "100/vm-100-disk-9.raw", None, {})
    assert answer == {"driver": "host_device", "filename": str(device)}
    with pytest.raises(StorageError, match="stat for"):
        it("qemu_blockdev_options", "100/vm-100-disk-5.raw", None, {})


@pytest.mark.contract("C-082")
def test_blockdev_options_of_a_snapshot(tmp_path: Path) -> None:
    plain = Dir(tmp_path)
    volname = plain.alloc(100, "qcow2")
    plain("volume_snapshot", volname, "a")
    with pytest.raises(StorageError, match="cannot attach only the snapshot of a 'qcow2' image"):
        plain("qemu_blockdev_options", volname, None, {"snapshot-name": "a"})
    chain = Dir(tmp_path, **{"snapshot-as-volume-chain": 1})
    volname = chain.alloc(101, "qcow2")
    chain("volume_snapshot", volname, "a")
    answer = chain("qemu_blockdev_options", volname, None, {"snapshot-name": "a"})
    assert answer["filename"].endswith("/snap-a-vm-101-disk-0.qcow2")


def test_a_subclass_overrides_where_it_differs(tmp_path: Path) -> None:
    class Quota(DirectoryPlugin[DirectoryConfig]):
        type = "quota"

        def path(
            self,
            storage: Storage[DirectoryConfig],
            volname: str,
            snapname: str | None = None,
        ) -> str:
            return super().path(storage, volname, snapname).replace("vm-", "disk-")

    it = Dir(tmp_path)
    it.plugin = Quota()
    assert it.path("100/vm-100-disk-0.raw").name == "disk-100-disk-0.raw"


@pytest.mark.contract("C-037")
def test_a_file_system_that_hangs_is_given_up(tmp_path: Path) -> None:
    answers = threading.Event()
    threads = threading.active_count()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(probe.Unreachable):
            probe.ask("/dead", answers.wait)
        assert time.monotonic() - began < 4
    assert threading.active_count() == threads + 1
    assert probe.ask(str(tmp_path), lambda: 7) == 7
    answers.set()
    wait_until(lambda: threading.active_count() == threads)
    assert probe.ask("/dead", lambda: 8) == 8
