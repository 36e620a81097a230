# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Export and import over pipes, sockets and files; streams that are cut, slow or malformed."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from directory_util import MIB, Dir, disk_hash, qemu_io, small_filesystem
from probe_util import wait_until
from pve_pybridge import Cancelled, StorageError
from pve_pybridge.storage import Call


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "target")


def export(it: Dir, volname: str, format_: str, *more: object) -> bytes:
    """What comes out of a pipe that is read in the meantime."""
    ours, theirs = os.pipe()
    parts: list[bytes] = []

    def read() -> None:
        with open(ours, "rb") as stream:
            parts.append(stream.read())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        it("volume_export", theirs, volname, format_, *more)
    finally:
        os.close(theirs)
        thread.join()
    return parts[0]


def feed(data: bytes, kind: str, tmp: Path) -> tuple[int, Callable[[], object]]:
    """A descriptor from which *data* can be read, and how to be done with it."""
    if kind == "file":
        (tmp / "stream").write_bytes(data)
        fd = os.open(tmp / "stream", os.O_RDONLY)
        return fd, lambda: os.close(fd)
    if kind == "pipe":
        fd, theirs = os.pipe()
        stream = os.fdopen(theirs, "wb", 0)
        write: Callable[[bytes], object] = stream.write
        done: Callable[[], object] = stream.close
    else:
        if kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as server:
                sender = socket.create_connection(server.getsockname())
                receiver, _ = server.accept()
        else:
            sender, receiver = socket.socketpair()
        fd = receiver.detach()
        write, done = sender.sendall, sender.close

    def send() -> None:
        try:
            view = memoryview(data)
            while view:  # odd portions, so that the other side sees short reads
                write(bytes(view[:4099]))
                view = view[4099:]
        except (BrokenPipeError, ConnectionResetError):
            pass
        done()

    thread = threading.Thread(target=send)
    thread.start()

    def finish() -> None:
        os.close(fd)
        thread.join()

    return fd, finish


def import_(
    it: Dir, tmp: Path, data: bytes, volname: str, format_: str, *more: object, kind: str = "pipe"
) -> str:
    fd, finish = feed(data, kind, tmp)
    try:
        made: str = it("volume_import", fd, volname, format_, *more)
    finally:
        finish()
    return made


def pattern(it: Dir, format_: str) -> str:
    volname = it.alloc(100, format_, 5 * MIB)
    commands = ("write -P 7 0 64k", "write -P 8 3M 300k", "write -P 9 5116k 4k")
    qemu_io(it.path(volname), *commands, format=format_)
    return volname


@pytest.mark.contract("C-091", "C-092")
@pytest.mark.parametrize("kind", ["pipe", "tcp", "unix", "file"])
@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk"])
def test_raw_stream(it: Dir, target: Dir, tmp_path: Path, format_: str, kind: str) -> None:
    volname = pattern(it, format_)
    data = export(it, volname, "raw+size")
    assert struct.unpack("<Q", data[:8]) == (5 * MIB,)
    assert len(data) == 8 + 5 * MIB
    made = import_(target, tmp_path, data, "100/vm-100-disk-0.raw", "raw+size", kind=kind)
    path = target.path(made)
    assert disk_hash(path, "raw", tmp_path) == disk_hash(it.path(volname), format_, tmp_path)
    assert path.stat().st_size == 5 * MIB
    assert path.stat().st_blocks * 512 < 2 * MIB  # holes stay holes
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("format_", ["qcow2", "vmdk"])
def test_own_format_keeps_snapshots(it: Dir, target: Dir, tmp_path: Path, format_: str) -> None:
    volname = pattern(it, format_)
    if format_ == "qcow2":
        it("volume_snapshot", volname, "a")
        qemu_io(it.path(volname), "write -P 1 0 64k")
    stream = f"{format_}+size"
    data = export(it, volname, stream, None, None, True)
    made = import_(target, tmp_path, data, volname, stream, None, None, ["a"])
    assert target.path(made).read_bytes() == it.path(volname).read_bytes()
    if format_ == "qcow2":
        assert set(target("volume_snapshot_info", made)) == {"a"}


def test_subvol(it: Dir, target: Dir, tmp_path: Path) -> None:
    volname = it.alloc(100, "subvol", 0)
    root = it.path(volname)
    (root / "etc").mkdir()
    (root / "etc/höst name").write_text("ct")
    (root / "link").symlink_to("etc")
    os.chown(root / "etc", 100000, 100000)
    data = export(it, volname, "tar+size")
    assert data[:8] == bytes(8)
    made = import_(target, tmp_path, data, volname, "tar+size")
    copy = target.path(made)
    assert (copy / "etc/höst name").read_text() == "ct"
    assert (copy / "link").readlink() == Path("etc")
    assert (copy / "etc").stat().st_uid == 100000


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, MIB + 1])
@pytest.mark.parametrize("name", ["iso/a b.iso", "vztmpl/ü.tar.gz", "snippets/x", "import/i.ova"])
def test_files(it: Dir, target: Dir, tmp_path: Path, name: str, size: int) -> None:
    content = os.urandom(size)
    it.path(name).write_bytes(content)
    data = export(it, name, "raw+size")
    assert import_(target, tmp_path, data, name, "raw+size") == name
    assert target.path(name).read_bytes() == content


@pytest.mark.parametrize(
    ("volname", "format_", "more"),
    [
        ("100/vm-100-disk-0.raw", "raw+size", ("snap",)),
        ("100/vm-100-disk-0.raw", "raw+size", (None, "base")),
        ("100/vm-100-disk-0.raw", "raw+size", (None, None, True)),
        ("100/vm-100-disk-0.raw", "qcow2+size", ()),
        ("100/vm-100-disk-0.raw", "tar+size", ()),
        ("100/vm-100-disk-0.qcow2", "qcow2+size", ()),
        ("100/subvol-100-disk-0.subvol", "raw+size", ()),
        ("100/vm-100-disk-0.raw", "zfs", ()),
    ],
)
def test_what_cannot_be_exported(
    it: Dir, volname: str, format_: str, more: tuple[object, ...]
) -> None:
    with pytest.raises(StorageError, match=r"volume export format .* not available for pydir"):
        export(it, volname, format_, *more)


def test_chains_are_exported_without_snapshots(tmp_path: Path) -> None:
    it = Dir(tmp_path / "chain", **{"snapshot-as-volume-chain": 1})
    volname = pattern(it, "qcow2")
    it("volume_snapshot", volname, "a")
    qemu_io(it.path(volname), "write -P 1 1M 64k")
    with pytest.raises(StorageError, match="cannot export volumes together with their snapshots"):
        export(it, volname, "qcow2+size", None, None, True)
    raw = tmp_path / "raw"
    raw.write_bytes(export(it, volname, "raw+size")[8:])
    same = disk_hash(it.path(volname), "qcow2", tmp_path / "..")
    assert disk_hash(raw, "raw", tmp_path / "..") == same


def test_a_missing_volume_is_told_before_anything_is_written(it: Dir) -> None:
    ours, theirs = os.pipe()
    with pytest.raises(StorageError, match="failed to stat"):
        it("volume_export", theirs, "100/vm-100-disk-0.qcow2", "raw+size")
    os.close(theirs)
    assert os.read(ours, 8) == b""
    os.close(ours)


def test_a_broken_image_is_told(it: Dir) -> None:
    volname = it.alloc(100, "qcow2")
    it.path(volname).write_bytes(b"garbage" * 100)
    with pytest.raises(StorageError, match="not in qcow2 format"):
        export(it, volname, "raw+size")


@pytest.mark.contract("C-095")
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_reader_that_leaves_early(it: Dir, format_: str) -> None:
    volname = pattern(it, format_)
    ours, theirs = os.pipe()
    os.close(ours)
    with pytest.raises(StorageError):
        it("volume_export", theirs, volname, "raw+size")
    os.close(theirs)
    wait_until(lambda: users_of(it.path(volname)) == [])


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_reader_that_stops_reading(it: Dir, format_: str) -> None:
    volname = pattern(it, format_)
    ours, theirs = os.pipe()
    call = Call()
    threading.Timer(0.3, call.cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        it("volume_export", theirs, volname, "raw+size", call=call)
    assert time.monotonic() - began < 5
    os.close(ours)
    os.close(theirs)
    wait_until(lambda: users_of(it.path(volname)) == [])


def users_of(path: Path) -> list[Path]:
    """Descriptors of that file, in any process."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                found.append(link)
        except OSError:
            continue  # its process has ended
    return found


@pytest.mark.contract("C-092", "C-060")
@pytest.mark.parametrize("kind", ["pipe", "tcp", "unix", "file"])
@pytest.mark.parametrize("keep", [0, 5, 8, 8 + 65536, 8 + 5 * MIB - 512])
def test_a_raw_stream_that_is_cut(
    it: Dir, target: Dir, tmp_path: Path, keep: int, kind: str
) -> None:
    data = export(it, pattern(it, "raw"), "raw+size")[:keep]
    with pytest.raises(StorageError, match=r"import: (stream ended after|no size found)"):
        import_(target, tmp_path, data, "100/vm-100-disk-0.raw", "raw+size", kind=kind)
    assert target.files() == []


@pytest.mark.contract("C-092")
@pytest.mark.parametrize("format_", ["qcow2", "vmdk"])
@pytest.mark.parametrize("missing", [100_000, 300_000])
def test_an_image_stream_that_is_cut(
    it: Dir, target: Dir, tmp_path: Path, format_: str, missing: int
) -> None:
    it.options["preallocation"] = "off"
    stream = f"{format_}+size"
    volname = pattern(it, format_)
    data = export(it, volname, stream, None, None, True)[:-missing]
    with pytest.raises(StorageError):
        import_(target, tmp_path, data, volname, stream, None, None, True)
    assert target.files() == []


@pytest.mark.contract("C-092")
@pytest.mark.parametrize("keep", [8, 8 + 10240, 8 + 2 * 10240 + 700])
def test_a_tar_stream_that_is_cut(it: Dir, target: Dir, tmp_path: Path, keep: int) -> None:
    volname = it.alloc(100, "subvol", 0)
    for number in range(40):
        (it.path(volname) / str(number)).write_bytes(os.urandom(512))
    data = export(it, volname, "tar+size")
    assert len(data) > keep
    with pytest.raises(StorageError):
        import_(target, tmp_path, data[:keep], volname, "tar+size")
    assert target.files() == []


@pytest.mark.contract("C-092")
def test_a_file_stream_that_is_cut(it: Dir, target: Dir, tmp_path: Path) -> None:
    it.path("iso/a.iso").write_bytes(bytes(5000))
    data = export(it, "iso/a.iso", "raw+size")[:-2000]
    with pytest.raises(StorageError, match="stream ended after 3000 of 5120 bytes"):
        import_(target, tmp_path, data, "iso/a.iso", "raw+size")
    assert not target.path("iso/a.iso").exists()


@pytest.mark.contract("C-093")
def test_a_name_that_is_taken(it: Dir, target: Dir, tmp_path: Path) -> None:
    volname = pattern(it, "raw")
    data = export(it, volname, "raw+size")
    target.alloc(100, "raw", MIB)
    with pytest.raises(StorageError, match="already exists"):
        import_(target, tmp_path, data, volname, "raw+size")
    assert target.path(volname).stat().st_size == MIB
    made = import_(target, tmp_path, data, volname, "raw+size", None, None, False, True)
    assert made == "100/vm-100-disk-1.raw"
    assert target.path(made).stat().st_size == 5 * MIB
    for name in ("iso/a.iso", "snippets/a"):
        target.path(name).write_bytes(b"mine")
        with pytest.raises(StorageError, match="already exists"):
            import_(target, tmp_path, data, name, "raw+size", None, None, False, True)
        assert target.path(name).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("volname", "stream", "message"),
    [
        ("100/vm-100-disk-0.qcow2", ("raw+size", False), r"cannot import format raw.size into"),
        ("100/vm-100-disk-0.raw", ("raw+size", True), "cannot be imported with snapshots"),
        ("100/vm-100-disk-0.qcow2", ("qcow2+size", False), "cannot be imported without snapshots"),
        ("100/vm-100-disk-0.raw", ("zfs", False), "volume import format 'zfs' not available"),
        ("backup/vzdump-lxc-1-x.tar", ("raw+size", False), "importing volume of type 'backup'"),
        ("9/base-9-disk-0.raw/100/vm-100-disk-0.raw", ("raw+size", False), "internal error"),
    ],
)
def test_what_cannot_be_imported(
    target: Dir, tmp_path: Path, volname: str, stream: tuple[str, bool], message: str
) -> None:
    format_, snapshots = stream
    with pytest.raises(StorageError, match=message):
        import_(target, tmp_path, bytes(8), volname, format_, None, None, snapshots, kind="file")
    assert target.files() == []


@pytest.mark.contract("C-060")
def test_import_into_a_full_file_system(it: Dir, tmp_path: Path) -> None:
    volname = it.alloc(100, "raw", 8 * MIB)
    qemu_io(it.path(volname), "write -P 7 0 8M", format="raw")
    data = export(it, volname, "raw+size")
    with small_filesystem(tmp_path / "m") as mount:
        target = Dir(mount)
        with pytest.raises(StorageError, match="No space left"):
            import_(target, tmp_path, data, volname, "raw+size")
        assert target.files() == []


def test_import_needs_the_mount(it: Dir, tmp_path: Path) -> None:
    data = export(it, pattern(it, "raw"), "raw+size")
    target = Dir(tmp_path / "target")
    target.options["is_mountpoint"] = "1"
    with pytest.raises(StorageError, match="is not mounted"):
        import_(target, tmp_path, data, "100/vm-100-disk-0.raw", "raw+size", kind="file")
    assert target.files() == []


@pytest.mark.contract("C-060")
@pytest.mark.parametrize("sent", [4, 8 + 70000])
def test_a_cancelled_import_leaves_nothing(target: Dir, sent: int) -> None:
    ours, theirs = os.pipe()
    call = Call()
    data = (struct.pack("<Q", 10 * MIB) + bytes(MIB))[:sent]
    threading.Thread(target=os.write, args=(theirs, data), daemon=True).start()
    threading.Timer(0.3, call.cancelled.set).start()
    with pytest.raises(Cancelled):
        target("volume_import", ours, "100/vm-100-disk-0.raw", "raw+size", call=call)
    os.close(ours)
    os.close(theirs)
    assert target.files() == []


def test_progress_is_logged(it: Dir) -> None:
    volname = it.alloc(100, "qcow2", 64 * MIB)
    ours, theirs = os.pipe()

    def slowly() -> None:
        while os.read(ours, 1 << 20):
            time.sleep(0.001)

    thread = threading.Thread(target=slowly)
    thread.start()
    it("volume_export", theirs, volname, "raw+size")
    os.close(theirs)
    thread.join()
    os.close(ours)
    assert any(line.startswith("transferred ") for _, line in it.logged)
