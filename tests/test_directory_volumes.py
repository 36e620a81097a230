# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Disk images: allocate, list, size, resize, clone, base, rename, free; and what goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from directory_util import MIB, Dir, disk_hash, info, qemu_io, small_filesystem
from pve_pybridge import Cancelled, StorageError
from pve_pybridge.storage import Call


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "storage")


@pytest.mark.contract("C-043", "C-055")
def test_the_lowest_free_number_is_taken(it: Dir) -> None:
    assert it.alloc(100, "raw") == "100/vm-100-disk-0.raw"
    assert it.alloc(100, "qcow2") == "100/vm-100-disk-1.qcow2"
    assert it.alloc(100, "vmdk") == "100/vm-100-disk-2.vmdk"
    assert it.alloc(100, "subvol", 0) == "100/subvol-100-disk-3.subvol"
    it("free_image", "100/vm-100-disk-1.qcow2", False, "qcow2")
    assert it.alloc(100, "raw") == "100/vm-100-disk-1.raw"
    assert it.alloc(10, "raw") == "10/vm-10-disk-0.raw"
    parsed = it.plugin.parse_volname("100/subvol-100-disk-3.subvol")
    assert (parsed.vmid, parsed.format) == (100, "subvol")


@pytest.mark.contract("C-055")
def test_parallel_allocations_never_share_a_name(it: Dir) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: it.alloc(100, "raw"), range(40)))
    assert sorted(names) == sorted(f"100/vm-100-disk-{n}.raw" for n in range(40))


def test_allocating_while_the_directory_goes_away(it: Dir) -> None:
    def cycle(_: int) -> None:
        volname = it.alloc(100, "raw")
        it("free_image", volname, False, "raw")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cycle, range(40)))
    assert it.files() == []


@pytest.mark.contract("C-057", "C-058")
@pytest.mark.parametrize("size", [1024, 1536, 528 << 10, 4 * MIB, 64 << 40, (1 << 40) + 1])
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_sizes(it: Dir, size: int, format_: str) -> None:
    it.options["preallocation"] = "off"
    try:
        volname = it.alloc(100, format_, size)
    except StorageError as err:
        assert "unable to create image" in str(err) or "too" in str(err).lower()  # noqa: PT017  # not every file system
        assert it.files() == []
        return
    wanted = -(-size // 512) * 512
    found = it("volume_size_info", volname, 10)
    assert (found.size, found.format) == (wanted, format_)


@pytest.mark.contract("C-056")
@pytest.mark.parametrize(
    "name",
    ["vm-100-cloudinit.qcow2", "vm-100-state-x.raw", "vm-100-fleece-0.qcow2", "ünï.raw", "my.raw"],
)
def test_given_names_are_kept(it: Dir, name: str) -> None:
    format_ = name.rpartition(".")[2]
    assert it.alloc(100, format_, MIB, name) == f"100/{name}"
    with pytest.raises(StorageError, match="already exists"):
        it.alloc(100, format_, MIB, name)


@pytest.mark.contract("C-056", "C-059")
@pytest.mark.parametrize(
    ("name", "format_", "message"),
    [
        ("vm-101-disk-0.raw", "raw", r"illegal name 'vm-101-disk-0\.raw' - should be 'vm-100-\*'"),
        ("vm-100-disk-0.raw", "qcow2", r"wrong extension for format \('raw != 'qcow2'\)"),
        ("vm-100-disk-0", "raw", "unable to parse volume filename"),
        ("../vm-100-disk-0.raw", "raw", "unable to parse volume filename"),
        ("with space.raw", "raw", "unable to parse volume filename"),
        ("snap-a-vm-100-disk-0.qcow2", "qcow2", "unable to parse volume filename"),
    ],
)
def test_names_that_do_not_fit(it: Dir, name: str, format_: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        it.alloc(100, format_, MIB, name)
    assert it.files() == []


@pytest.mark.contract("C-059")
@pytest.mark.parametrize("format_", ["vdi", "qed", "", "subvol"])
def test_formats_that_do_not_fit(it: Dir, format_: str) -> None:
    with pytest.raises(StorageError):
        it.alloc(100, format_, MIB)
    assert it.files() == []


@pytest.mark.parametrize(
    ("preallocation", "format_", "full"),
    [
        (None, "qcow2", False),
        ("off", "qcow2", False),
        ("falloc", "raw", True),
        ("full", "qcow2", True),
        ("metadata", "raw", False),
        (None, "vmdk", False),
        ("full", "vmdk", False),
    ],
)
def test_preallocation(tmp_path: Path, preallocation: str | None, format_: str, full: bool) -> None:
    options = {} if preallocation is None else {"preallocation": preallocation}
    it = Dir(tmp_path, **options)
    volname = it.alloc(100, format_, 4 * MIB)
    assert (it.path(volname).stat().st_blocks * 512 >= 4 * MIB) == full
    # only with metadata preallocated, the file has its final length at once
    metadata = format_ == "qcow2" and preallocation != "off"
    assert (it.path(volname).stat().st_size > 4 * MIB) == metadata


def test_an_impossible_preallocation_is_refused(tmp_path: Path) -> None:
    it = Dir(tmp_path, preallocation="some")
    with pytest.raises(StorageError, match="preallocation mode 'some' not supported by format"):
        it.alloc(100, "raw")
    assert it.files() == []


def test_modes(it: Dir) -> None:
    image = it.path(it.alloc(100, "qcow2"))
    assert image.stat().st_mode & 0o777 == 0o640
    assert image.parent.stat().st_mode & 0o777 == 0o740
    assert it.path(it.alloc(100, "subvol", 0)).stat().st_mode & 0o777 == 0o755


@pytest.mark.contract("C-070")
def test_a_new_image_reads_as_zeros(it: Dir, tmp_path: Path) -> None:
    raw, qcow2 = it.alloc(100, "raw"), it.alloc(100, "qcow2")
    assert it.path(raw).read_bytes() == bytes(MIB)
    assert disk_hash(it.path(qcow2), "qcow2", tmp_path) == disk_hash(it.path(raw), "raw", tmp_path)


@pytest.mark.contract("C-060")
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_full_file_system_leaves_nothing(tmp_path: Path, format_: str) -> None:
    with small_filesystem(tmp_path / "m") as mount:
        it = Dir(mount, preallocation="full")
        with pytest.raises(StorageError, match=r"unable to create image.*No space left"):
            it.alloc(100, format_, 64 * MIB)
        assert it.files() == []


@pytest.mark.contract("C-060")
def test_a_read_only_file_system_is_told(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "m") as mount:
        it = Dir(mount)
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        with pytest.raises(StorageError, match="Read-only file system"):
            it.alloc(100, "raw")
        assert it.files() == []


@pytest.mark.contract("C-060")
def test_a_cancelled_allocation_leaves_nothing(tmp_path: Path) -> None:
    it = Dir(tmp_path, preallocation="full")
    call = Call()

    def cancel() -> None:
        while not it.files():
            time.sleep(0.001)
        call.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        it("alloc_image", 100, "raw", None, 1 << 40, call=call)
    thread.join()
    assert time.monotonic() - began < 5
    assert it.files() == []


@pytest.mark.contract("C-046", "C-047", "C-048", "C-049")
def test_list_images(it: Dir) -> None:
    a, b, c = it.alloc(100, "raw"), it.alloc(100, "qcow2", 3 * MIB), it.alloc(101, "subvol", 0)
    found = it("list_images", None, None)
    assert [(v.volname, v.format, v.size, v.vmid) for v in found] == [
        (a, "raw", MIB, 100),
        (b, "qcow2", 3 * MIB, 100),
        (c, "subvol", 0, 101),
    ]
    assert all(v.ctime and v.used is not None for v in found)
    assert [v.volname for v in it("list_images", 101, None)] == [c]
    assert it("list_images", 999, None) == []
    picked = it("list_images", 101, [f"s:{a}", "s:100/gone.raw", f"other:{b}"])
    assert [v.volname for v in picked] == [a]
    assert it("list_images", None, None) == found


def test_raw_sizes_are_those_of_qemu(it: Dir) -> None:
    volname = it.alloc(100, "raw")
    for size in (0, 1, 511, 512, 513, 1000, MIB + 1):
        os.truncate(it.path(volname), size)
        answer = info(it.path(volname), "raw")
        found = it("volume_size_info", volname, None)
        assert (found.size, found.used) == (answer["virtual-size"], answer["actual-size"])


@pytest.mark.contract("C-050")
def test_what_is_no_image_is_not_listed(it: Dir) -> None:
    it.alloc(100, "raw")
    images = it.root / "images"
    for name in ("snap-a-vm-100-disk-0.qcow2", "with space.raw", ".hidden.raw", "x.txt"):
        (images / "100" / name).touch()
    (images / "stray.raw").touch()
    (images / "other").mkdir()
    (images / "other" / "vm-1-disk-0.raw").touch()
    (images / "0100").mkdir()
    (images / "0100" / "vm-100-disk-1.raw").touch()
    (images / "100" / "loop.raw").symlink_to("nowhere")
    assert [v.volname for v in it("list_images", None, None)] == ["100/vm-100-disk-0.raw"]


def test_broken_images_do_not_hide_the_others(it: Dir) -> None:
    good = it.alloc(100, "qcow2")
    directory = it.root / "images" / "100"
    (directory / "vm-100-disk-1.qcow2").write_bytes(b"no image" * 100)
    header = bytearray(it.path(good).read_bytes()[:4096])
    header[4:8] = b"\0\0\0\x63"  # a version nobody knows
    (directory / "vm-100-disk-2.qcow2").write_bytes(header)
    (directory / "vm-100-disk-3.qcow2").mkdir()
    (directory / "vm-100-disk-4.qcow2").symlink_to("/dev/loop-control")
    found = {v.volname: v.format for v in it("list_images", None, None)}
    assert found == {
        "100/vm-100-disk-0.qcow2": "qcow2",
        "100/vm-100-disk-1.qcow2": "invalid",
        "100/vm-100-disk-2.qcow2": "invalid",
    }
    expected = "is not in expected format 'qcow2', querying as raw"
    assert any(line.endswith(expected) for line in it.warnings())
    it("free_image", "100/vm-100-disk-2.qcow2", False, "qcow2")
    assert not (directory / "vm-100-disk-2.qcow2").exists()


def test_an_image_in_use_is_listed(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    user = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(it.path(volname))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout is not None
    user.stdout.read(1)  # its prompt: the image is open and locked
    try:
        assert [v.format for v in it("list_images", 100, None)] == ["qcow2"]
        assert it("volume_size_info", volname, 5).size == MIB
    finally:
        user.communicate(b"quit\n", timeout=10)


@pytest.mark.contract("C-065")
def test_size_of_what_is_not_there(it: Dir) -> None:
    with pytest.raises(StorageError, match="failed to stat"):
        it("volume_size_info", "100/vm-100-cloudinit.qcow2", 5)
    (it.root / "images/100").mkdir()
    (it.root / "images/100/vm-100-disk-0.raw").symlink_to("nowhere")
    with pytest.raises(StorageError, match="dangling symlink"):
        it("volume_size_info", "100/vm-100-disk-0.raw", 5)
    (it.root / "images/100/vm-100-disk-1.raw").mkdir()
    with pytest.raises(StorageError, match=r"expected format 'raw', but .* is a directory"):
        it("volume_size_info", "100/vm-100-disk-1.raw", 5)


@pytest.mark.contract("C-065")
def test_the_timeout_of_size_info_is_honoured(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    it.path(volname).unlink()
    os.mkfifo(it.path(volname))  # nobody ever writes: opening it hangs
    began = time.monotonic()
    with pytest.raises(StorageError):
        it("volume_size_info", volname, 1)
    assert time.monotonic() - began < 3


@pytest.mark.contract("C-066")
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_resize(it: Dir, format_: str) -> None:
    volname = it.alloc(100, format_, 4 * MIB)
    it("volume_resize", volname, 8 * MIB, False)
    assert it("volume_size_info", volname, None).size == 8 * MIB
    it("volume_resize", volname, 16 * MIB, True)
    assert it("volume_size_info", volname, None).size == 8 * MIB
    with pytest.raises(StorageError, match=r"shrink|growing"):
        it("volume_resize", volname, 4 * MIB, False)
    with pytest.raises(StorageError, match="without 'snapshot-as-volume-chain'"):
        it("volume_resize", volname, 16 * MIB, False, "a")


def test_other_formats_cannot_be_resized(it: Dir) -> None:
    for volname in (it.alloc(100, "vmdk"), it.alloc(100, "subvol", 0)):
        with pytest.raises(StorageError, match="can't resize this image format"):
            it("volume_resize", volname, 8 * MIB, False)


@pytest.mark.contract("C-044", "C-045", "C-068")
@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk"])
def test_base_and_clone(it: Dir, tmp_path: Path, format_: str) -> None:
    volname = it.alloc(100, format_, 4 * MIB)
    qemu_io(it.path(volname), "write -P 7 1M 64k", format=format_)
    base = it("create_base", volname)
    assert base == f"100/base-100-disk-0.{format_}"
    assert it.plugin.parse_volname(base).is_base
    assert not it.path(volname).exists()
    assert it.path(base).stat().st_mode & 0o777 == 0o444
    try:
        clone = it("clone_image", base, 101, None)
        assert clone == f"100/base-100-disk-0.{format_}/101/vm-101-disk-0.qcow2"
        answer = info(it.path(clone))
        assert answer["backing-filename"] == f"../100/base-100-disk-0.{format_}"
        assert answer["cluster-size"] == 128 << 10
        assert answer["format-specific"]["data"]["extended-l2"] is True
        before = disk_hash(it.path(base), format_, tmp_path)
        assert disk_hash(it.path(clone), "qcow2", tmp_path) == before
        qemu_io(it.path(clone), "write -P 9 0 64k")
        assert disk_hash(it.path(base), format_, tmp_path) == before
        listed = {v.volname: v.parent for v in it("list_images", None, None)}
        assert listed == {base: None, clone: f"../100/base-100-disk-0.{format_}"}
        second = it("create_base", clone)
        assert second == f"100/base-100-disk-0.{format_}/101/base-101-disk-0.qcow2"
        it("free_image", second, True, "qcow2")
    finally:
        it("free_image", base, True, format_)
    assert it.files() == []


def test_what_cannot_be_a_base_or_a_clone(it: Dir) -> None:
    volname = it.alloc(100, "raw")
    with pytest.raises(StorageError, match="clone_image only works on base images"):
        it("clone_image", volname, 101, None)
    base = it("create_base", volname)
    with pytest.raises(StorageError, match="create_base not possible with base image"):
        it("create_base", base)
    with pytest.raises(StorageError, match="does not support clone_image on snapshot"):
        it("clone_image", base, 101, "a")
    with pytest.raises(StorageError, match="create_base on wrong vtype 'iso'"):
        it("create_base", "iso/a.iso")
    subvol = it("create_base", it.alloc(100, "subvol", 0))
    assert subvol == "100/base-100-disk-1.subvol"
    assert it.path(subvol).stat().st_mode & 0o777 == 0o755
    with pytest.raises(StorageError, match="does not support clone_image on subvolumes"):
        it("clone_image", subvol, 101, None)
    it("free_image", subvol, True, "subvol")
    it("free_image", base, True, "raw")


def test_a_file_system_without_the_immutable_flag(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "m", "8m") as mount:
        it = Dir(mount)
        base = it("create_base", it.alloc(100, "raw"))
        it("clone_image", base, 101, None)
        it("free_image", base, True, "raw")


@pytest.mark.contract("C-060")
def test_a_failed_clone_leaves_nothing(it: Dir) -> None:
    base = it("create_base", it.alloc(100, "raw"))
    it("free_image", base, True, "raw")
    with pytest.raises(StorageError, match="unable to create image"):
        it("clone_image", base, 101, None)
    assert it.files() == []


@pytest.mark.contract("C-067")
def test_rename(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    taken = it.alloc(101, "qcow2")
    qemu_io(it.path(volname), "write -P 7 0 64k")
    content = it.path(volname).read_bytes()
    renamed = it("rename_volume", volname, 101, None)
    assert renamed == "101/vm-101-disk-1.qcow2"
    assert it.path(renamed).read_bytes() == content
    with pytest.raises(StorageError, match=r"target volume 'vm-101-disk-0\.qcow2' already exists"):
        it("rename_volume", renamed, 101, "vm-101-disk-0.qcow2")
    assert it("rename_volume", renamed, 102, "vm-102-disk-7.qcow2") == "102/vm-102-disk-7.qcow2"
    with pytest.raises(StorageError, match="does not exist"):
        it("rename_volume", "100/vm-100-disk-5.qcow2", 102, None)
    assert it.path(taken).exists()
    assert it.path("102/vm-102-disk-7.qcow2").read_bytes() == content


def test_a_renamed_clone_keeps_its_base(it: Dir) -> None:
    base = it("create_base", it.alloc(100, "raw"))
    clone = it("clone_image", base, 101, None)
    assert it("rename_volume", clone, 102, None) == f"{base}/102/vm-102-disk-0.qcow2"
    it("free_image", base, True, "raw")


@pytest.mark.contract("C-061")
def test_free(it: Dir) -> None:
    a, b = it.alloc(100, "raw"), it.alloc(100, "subvol", 0)
    (it.path(b) / "etc").mkdir()
    it("free_image", a, False, "raw")
    assert (it.root / "images/100").is_dir()
    it("free_image", b, False, "subvol")
    assert it.files() == []
    it("free_image", a, False, "raw")
    assert it.warnings() == [f"disk image '{it.path(a)}' does not exist"]
    it("free_image", b, False, "subvol")


def test_other_content_can_be_freed(it: Dir) -> None:
    file = it.root / "template/iso/a b.iso"
    file.touch()
    it("free_image", "iso/a b.iso", False, "raw")
    assert not file.exists()


def test_list_volumes_by_content(it: Dir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / ".vmlist").write_text('{"ids": {"100": {"type": "qemu"}, "101": {"type": "lxc"}}}')
    monkeypatch.setenv("PVE_PYBRIDGE_ETC_PVE", str(etc))
    for vmid in (100, 101, 102):
        it.alloc(vmid, "raw")
    for name in (
        *("template/iso/a.iso", "template/iso/B.IMG", "template/iso/ignored.txt"),
        *("template/cache/d.tar.zst", "template/cache/d.tar", "snippets/hook.pl"),
        *("import/x.ova", "import/not listed.ova", "import/y.qcow2", "dump/.hidden.vma"),
    ):
        (it.root / name).write_bytes(b"12345")
    (it.root / "template/iso/dir.iso").mkdir()

    def names(*content: str, vmid: int | None = None) -> list[tuple[str, str, str]]:
        found = it("list_volumes", vmid, list(content))
        return [(v.volname, v.format, v.content) for v in found]

    assert names("images") == [
        ("100/vm-100-disk-0.raw", "raw", "images"),
        ("102/vm-102-disk-0.raw", "raw", "images"),
    ]
    assert names("rootdir") == [("101/vm-101-disk-0.raw", "raw", "rootdir")]
    assert names("rootdir", "images", vmid=101) == [("101/vm-101-disk-0.raw", "raw", "rootdir")]
    assert names("iso") == [("iso/B.IMG", "iso", "iso"), ("iso/a.iso", "iso", "iso")]
    assert names("iso", "vztmpl", vmid=100) == []
    assert names("vztmpl") == [
        ("vztmpl/d.tar", "tar", "vztmpl"),
        ("vztmpl/d.tar.zst", "tzst", "vztmpl"),
    ]
    assert names("snippets") == [("snippets/hook.pl", "snippet", "snippets")]
    assert names("import") == [
        ("import/x.ova", "ova", "import"),
        ("import/y.qcow2", "qcow2", "import"),
    ]
    assert names("nonsense", "none") == []
    assert it("list_volumes", None, ["iso"])[0].size == 5


@pytest.mark.contract("C-052")
def test_a_missing_content_directory_is_empty(it: Dir) -> None:
    shutil.rmtree(it.root / "dump")
    shutil.rmtree(it.root / "images")
    assert it("list_volumes", None, ["backup", "images"]) == []


def test_names_that_are_no_text(it: Dir) -> None:
    raw = os.fsencode(it.root / "template/iso") + b"/\xff\xfe.iso"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    (volume,) = it("list_volumes", None, ["iso"])
    assert os.fsencode(volume.volname) == b"iso/\xff\xfe.iso"
    it("activate_volume", volume.volname, None, None)
    it("free_image", volume.volname, False, "raw")
    assert not os.path.exists(raw)
