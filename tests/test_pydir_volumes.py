# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Life and use of ``pydir`` volumes, through PVE::Storage (contract 9, E and F)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from pydir_util import EXTRA, MIB, PyDir, Store, info, qemu_io

FORMATS = ["raw", "qcow2", "vmdk"]


# --- allocation --------------------------------------------------------------------------------


@pytest.mark.contract("C-055")
@pytest.mark.method("alloc_image")
def test_the_lowest_free_name(store: Store) -> None:
    names = [store.alloc(100, format_).split("/")[1] for format_ in ("raw", "qcow2", "raw")]
    assert names == ["vm-100-disk-0.raw", "vm-100-disk-1.qcow2", "vm-100-disk-2.raw"]
    store("vdisk_free", store.volid("100/vm-100-disk-1.qcow2"))
    assert store.alloc(100, "vmdk").endswith("/vm-100-disk-1.vmdk")
    assert store.alloc(101, "subvol", 0).endswith(":101/subvol-101-disk-0.subvol")
    assert store.alloc(101, "raw", name="").endswith(":101/vm-101-disk-1.raw")


PARALLEL = """
    my ($storeid, $rounds, $processes) = @ARGS;
    pipe(my $reader, my $writer) or die "pipe: $!";
    my @children;
    for my $number (1 .. $processes) {
        my $pid = fork() // die "fork: $!";
        push(@children, $pid) and next if $pid;
        close($reader);
        for (1 .. $rounds) {
            my $line = eval {
                my $cfg = PVE::Storage::config();
                my $volid = PVE::Storage::vdisk_alloc($cfg, $storeid, 100, 'qcow2', undef, 1024);
                PVE::Storage::volume_snapshot($cfg, $volid, "s$number");
                my $info = PVE::Storage::volume_snapshot_info($cfg, $volid);
                die "wrong snapshots\\n" if join(' ', keys %$info) ne "s$number";
                PVE::Storage::volume_resize($cfg, $volid, 2 << 20, 0);
                my $size = PVE::Storage::volume_size_info($cfg, $volid, 10);
                die "wrong size $size\\n" if $size != 2 << 20;
                PVE::Storage::volume_list($cfg, $storeid, 101, 'images');
                $volid;
            } // "error: $@";
            syswrite($writer, $line =~ s/\\n*\\z/\\n/r);
        }
        POSIX::_exit(0);
    }
    close($writer);
    my @lines = <$reader>;
    waitpid($_, 0) for @children;
    chomp(@lines);
    return \\@lines;
"""


@pytest.mark.contract("C-055", "C-103")
@pytest.mark.method("alloc_image", "volume_snapshot", "volume_resize")
def test_twenty_processes_at_once(store: Store) -> None:
    lines = store.node.perl(PARALLEL, store.id, 1, 20, timeout=110).ok()
    assert len(set(lines)) == 20, lines
    assert sorted(lines) == store.volids()


@pytest.mark.contract("C-056")
@pytest.mark.parametrize("name", ["cloudinit", "state-x", "fleece-0", "disk-7"])
def test_given_names(store: Store, name: str) -> None:
    full = f"vm-100-{name}.raw"
    assert store.alloc(100, name=full) == store.volid(f"100/{full}")
    before = store.file(store.volid(f"100/{full}")).stat()
    again = store.error("vdisk_alloc", store.id, 100, "raw", full, 2048)
    assert again == f"disk image '{store.root}/images/100/{full}' already exists"
    assert store.file(store.volid(f"100/{full}")).stat() == before
    foreign = store.error("vdisk_alloc", store.id, 101, "raw", full, 1024)
    assert foreign == f"illegal name '{full}' - should be 'vm-101-*'"
    assert store.images() == ["100", f"100/{full}"]


@pytest.mark.contract("C-057", "C-058")
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kib", [1, 528, 4096, 1.5])
def test_sizes(store: Store, format_: str, kib: float) -> None:
    volid = store.alloc(100, format_, kib)
    size = store.size(volid)
    assert kib * 1024 <= size < kib * 1024 + (64 << 10)
    assert size == info(store.file(volid))["virtual-size"]


@pytest.mark.contract("C-058", "C-060")
def test_a_huge_volume_works_or_fails_cleanly(pydir: PyDir, tmp_path: Path) -> None:
    store = pydir.store(tmp_path / "store", preallocation="off")
    kib = 64 << 30
    assert store.size(store.alloc(100, "qcow2", kib)) == 64 << 40
    result = store.run("vdisk_alloc", store.id, 101, "raw", None, kib)
    if result.error is None:  # a file system without such a limit
        assert store.size(result.value) == 64 << 40
    else:
        assert result.error.startswith("unable to create image: ")
        assert store.volids(vmid=101) == []
        assert not (store.root / "images/101").exists()


@pytest.mark.contract("C-059")
def test_wrong_formats_leave_nothing(store: Store) -> None:
    for format_, name in (("qed", None), ("raw", "vm-100-disk-0.qcow2"), ("raw", "vm-100-x")):
        assert store.error("vdisk_alloc", store.id, 100, format_, name, 1024)
    assert store.images() == []
    text = store.error("vdisk_alloc", store.id, 100, "subvol", None, 1024)
    assert text == "storage does not support subvol quotas"
    assert store.images() == []


# --- removal -----------------------------------------------------------------------------------


@pytest.mark.contract("C-061")
@pytest.mark.method("free_image")
def test_freeing_what_is_missing(store: Store) -> None:
    volid = store.alloc()
    store("activate_volumes", [volid])
    store("vdisk_free", volid)
    assert store.images() == []
    result = store.run("vdisk_free", volid)
    assert result.error is None
    assert "does not exist" in result.stderr


@pytest.mark.contract("C-062")
def test_freeing_takes_the_snapshots_along(pydir: PyDir, tmp_path: Path) -> None:
    for chain in (0, 1):
        root = tmp_path / f"store{chain}"
        options: dict[str, Any] = {"snapshot_as_volume_chain": 1} if chain else {}
        store = pydir.store(root, **options)
        volid = store.alloc(100, "qcow2")
        other = store.alloc(100, "qcow2")
        for name in ("one", "two"):
            store("volume_snapshot", volid, name)
            store("volume_snapshot", other, name)
        kept = [name for name in store.images() if "disk-0" not in name]
        store("vdisk_free", volid)
        assert store.images() == kept


@pytest.mark.contract("C-063")
@pytest.mark.method("free_image_cleanup")
def test_cleanup_in_another_process(node: Node, tmp_path: Path) -> None:
    node.serve(EXTRA)
    node.add("ee", "extra", path=tmp_path / "data")
    result = node.perl(
        """
        my $cfg = PVE::Storage::config();
        my $scfg = PVE::Storage::storage_config($cfg, 'ee');
        my $volid = PVE::Storage::vdisk_alloc($cfg, 'ee', 100, 'raw', undef, 1024);
        my $plugin = PVE::Storage::Plugin->lookup('extra');
        my $code = $plugin->free_image('ee', $scfg, '100/vm-100-disk-0.raw', 0, 'raw');
        my $again = PVE::Storage::vdisk_alloc($cfg, 'ee', 100, 'raw', undef, 2048);
        my $child = fork() // die "fork: $!";
        if (!$child) {
            eval { $code->() };
            warn $@ if $@;
            POSIX::_exit($@ ? 1 : 0);
        }
        waitpid($child, 0);
        return [$volid eq $again ? 1 : 0, $?];
        """
    )
    assert result.ok() == [1, 0]
    assert "wiped by " in result.stderr
    assert (tmp_path / "data/images/100/vm-100-disk-0.raw").stat().st_size == 2 * MIB
    assert list((tmp_path / "data").glob("trash*")) == []


@pytest.mark.contract("C-064")
def test_what_must_not_be_freed(store: Store) -> None:
    base = store("vdisk_create_base", store.alloc(100, "raw"))
    clone = store("vdisk_clone", base, 101)
    text = "base volume '100/base-100-disk-0.raw' is still in use by linked clones"
    assert store.error("vdisk_free", base) == text
    assert store.file(base).exists()
    store("vdisk_free", clone)
    store("vdisk_free", base)
    backup = store.root / "dump/vzdump-qemu-100-2024_01_01-00_00_00.vma"
    backup.touch()
    volid = store.volid(f"backup/{backup.name}")
    store("update_volume_attribute", volid, "protected", 1)
    text = f"cannot remove protected volume 'backup/{backup.name}' on '{store.id}'"
    assert store.error("vdisk_free", volid) == text
    assert backup.exists()


# --- size, resize, rename, clone ---------------------------------------------------------------


@pytest.mark.contract("C-065")
@pytest.mark.method("volume_size_info")
@pytest.mark.parametrize("format_", FORMATS)
def test_size_info(store: Store, format_: str) -> None:
    volid = store.alloc(100, format_, 3072)
    found = store("volume_size_info", volid, 5, context="list")
    assert (int(found[0]), found[1], found[3]) == (3 * MIB, format_, None)
    assert found[2] == info(store.file(volid))["actual-size"]
    missing = store.run("volume_size_info", store.volid("100/vm-100-disk-9.raw"), 5)
    assert missing.value is None
    assert "failed to stat" in (missing.error or missing.stderr)


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
@pytest.mark.parametrize("format_", FORMATS)
def test_resize(pydir: PyDir, store: Store, format_: str) -> None:
    volid = store.alloc(100, format_, 1024)
    if format_ == "vmdk":
        assert store.error("volume_resize", volid, 2 * MIB, 0) == "can't resize this image format"
        return
    store("volume_resize", volid, 2 * MIB, 0)
    assert store.size(volid) == 2 * MIB == info(store.file(volid))["virtual-size"]
    assert store.error("volume_resize", volid, MIB, 0)
    store("volume_resize", volid, 4 * MIB, 4711)  # a guest's process: QEMU resizes the file itself
    assert store.size(volid) == 2 * MIB
    if pydir.apiver >= 15:
        assert store.error("volume_resize", volid, 4 * MIB, 0, "snap")


@pytest.mark.contract("C-067")
@pytest.mark.method("rename_volume")
def test_rename(store: Store) -> None:
    volid = store.alloc(100, "qcow2")
    store.write(volid, 3)
    moved = store("rename_volume", volid, 101, None)
    assert moved == store.volid("101/vm-101-disk-0.qcow2")
    named = store("rename_volume", moved, 102, "vm-102-mine.qcow2")
    assert named == store.volid("102/vm-102-mine.qcow2")
    assert store.reads(named, 3)
    assert store.volids() == [named]
    other = store.alloc(102, "qcow2", name="vm-102-there.qcow2")
    text = store.error("rename_volume", named, 102, "vm-102-there.qcow2")
    assert text == "target volume 'vm-102-there.qcow2' already exists"
    assert store.volids() == sorted([named, other])


@pytest.mark.contract("C-068")
@pytest.mark.method("clone_image", "create_base")
@pytest.mark.parametrize("format_", FORMATS)
def test_linked_clone(store: Store, format_: str) -> None:
    volid = store.alloc(100, format_, 2048)
    store.write(volid, 9)
    assert store.error("vdisk_clone", volid, 101) == "clone_image only works on base images"
    base = store("vdisk_create_base", volid)
    clones = [store("vdisk_clone", base, 101) for _ in range(2)]
    store.write(clones[0], 1)
    assert (store.reads(clones[0], 1), store.reads(clones[1], 9)) == (True, True)
    assert qemu_io(store.file(base), "read -P 9 0 1M", "-r")
    assert not qemu_io(store.file(base), "write -P 9 0 1M", check=False)
    assert "on snapshot" in store.error("vdisk_clone", base, 101, "snap")


@pytest.mark.contract("C-071")
def test_locked_calls_on_a_shared_storage(pydir: PyDir, tmp_path: Path) -> None:
    """Far within PVE's 60 seconds, and without touching the alarm that ends them."""
    store = pydir.store(tmp_path / "shared", shared="1")
    began = time.monotonic()
    result = store.node.perl(
        """
        my ($storeid) = @ARGS;
        my $cfg = PVE::Storage::config();
        local $SIG{ALRM} = sub { die "not within 55 seconds\n" };
        alarm(55);
        my $volid = PVE::Storage::vdisk_alloc($cfg, $storeid, 100, 'qcow2', undef, 10 << 20);
        my $base = PVE::Storage::vdisk_create_base($cfg, $volid);
        my $clone = PVE::Storage::vdisk_clone($cfg, $base, 101);
        $clone = PVE::Storage::rename_volume($cfg, $clone, 102);
        PVE::Storage::vdisk_free($cfg, $clone);
        PVE::Storage::vdisk_free($cfg, $base);
        alarm(0);
        return $clone;
        """,
        store.id,
    )
    assert result.ok().endswith("/102/vm-102-disk-0.qcow2")
    assert time.monotonic() - began < 55
    assert store.volids() == []


# --- features ----------------------------------------------------------------------------------


@pytest.mark.contract("C-070")
@pytest.mark.parametrize("format_", FORMATS)
def test_sparseinit_means_zeros(store: Store, format_: str) -> None:
    volid = store.alloc(100, format_, 2048)
    store.write(volid, 0xEE)
    store("vdisk_free", volid)
    volid = store.alloc(100, format_, 2048)
    assert store("volume_has_feature", "sparseinit", volid)
    assert qemu_io(store.file(volid), "read -P 0 0 2M")


def perform(store: Store, feature: str, volid: str, snap: str | None) -> str | None:
    """The error of doing what *feature* promises."""
    target = store.volid("109/vm-109-disk-0.qcow2")
    calls: dict[str, tuple[Any, ...]] = {
        "snapshot": ("volume_snapshot", volid, "new"),
        "clone": ("vdisk_clone", volid, 109, snap),
        "template": ("vdisk_create_base", volid),
        "rename": ("rename_volume", volid, 109, None),
    }
    if feature in calls:
        return store.run(*calls[feature]).error
    # copy: what qemu-img is given
    path = store.run("path", volid, snap)
    if path.error is not None:
        return path.error
    source = ["-l", f"snapshot.name={snap}"] if snap else []
    suffix = Path(path.value).suffix[1:]
    if suffix == "subvol":
        return "a directory"
    store.file(target).parent.mkdir(parents=True, exist_ok=True)
    command = ["qemu-img", "convert", *source, "-f", suffix, "-O", "qcow2", path.value]
    done = subprocess.run([*command, store.file(target)], stderr=subprocess.PIPE, check=False)
    return done.stderr.decode() if done.returncode else None


@pytest.mark.contract("C-069")
@pytest.mark.method("volume_has_feature")
@pytest.mark.parametrize("feature", ["snapshot", "clone", "copy", "template", "rename"])
@pytest.mark.parametrize("state", ["current", "base", "snap"])
@pytest.mark.parametrize("format_", [*FORMATS, "subvol"])
def test_features_are_true(store: Store, feature: str, state: str, format_: str) -> None:
    """Every yes works.  A no fails as well, where the operation exists and PVE asks before it."""
    volid = store.alloc(100, format_, 0 if format_ == "subvol" else 64)
    snap = None
    if state == "snap":
        snap = "old"
        if store.run("volume_snapshot", volid, snap).error:
            assert format_ != "qcow2"
    if state == "base":
        volid = store("vdisk_create_base", volid)
    promised = store("volume_has_feature", feature, volid, snap, 0)
    if promised:
        assert perform(store, feature, volid, snap) is None
    elif (feature, state) in (("rename", "base"), ("rename", "snap"), ("template", "snap")):
        pass  # PVE does these with the live volume: nothing there to fail
    elif (feature, format_) != ("rename", "subvol"):
        assert perform(store, feature, volid, snap)


def test_features_that_depend_on_options(store: Store) -> None:
    base = store("vdisk_create_base", store.alloc(100, "raw"))

    def may_clone(*formats: str) -> bool:
        options = {"valid_target_formats": list(formats)}
        return bool(store("volume_has_feature", "clone", base, None, 0, options))

    assert (may_clone("raw"), may_clone("raw", "qcow2")) == (False, True)
    assert not store("volume_has_feature", "replicate", base)
    assert not store("volume_has_feature", "nonsense", base)
