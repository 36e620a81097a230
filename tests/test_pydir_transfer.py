# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Export and import of ``pydir`` volumes through PVE::Storage (contract 9, H)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pydir_util import MIB, PyDir, Store, content_hash

TRANSFER = """
    my ($source, $target, $format, $with_snapshots, $allow_rename) = @ARGS;
    my $cfg = PVE::Storage::config();
    pipe(my $reader, my $writer) or die "pipe: $!";
    my $child = fork() // die "fork: $!";
    if (!$child) {
        close($reader);
        eval {
            PVE::Storage::volume_export(
                $cfg, $writer, $source, $format, undef, undef, $with_snapshots);
        };
        warn $@ if $@;
        POSIX::_exit($@ ? 1 : 0);
    }
    close($writer);
    my $volid = eval {
        PVE::Storage::volume_import(
            $cfg, $reader, $target, $format, undef, undef, $with_snapshots, $allow_rename);
    };
    my $err = $@;
    close($reader);
    waitpid($child, 0);
    die $err if $err;
    die "export failed\\n" if $?;
    return $volid;
"""
TO_FILE = """
    my ($volid, $format, $file, $with_snapshots) = @ARGS;
    open(my $fh, '>', $file =~ m/(.*)/s) or die "open: $!";
    PVE::Storage::volume_export(
        PVE::Storage::config(), $fh, $volid, $format, undef, undef, $with_snapshots);
    close($fh) or die "close: $!";
"""
FROM = """
    my ($kind, $where, $volid, $format, $allow_rename) = @ARGS;
    my $fh;
    if ($kind eq 'file') {
        open($fh, '<', $where) or die "open: $!";
    } elsif ($kind eq 'pipe') {
        open($fh, '-|', 'cat', $where) or die "pipe: $!";
    } else {
        require IO::Socket::IP;
        require IO::Socket::UNIX;
        $fh = $kind eq 'tcp'
            ? IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $where)
            : IO::Socket::UNIX->new(Peer => $where);
        die "connect: $!" if !$fh;
    }
    return PVE::Storage::volume_import(
        PVE::Storage::config(), $fh, $volid, $format, undef, undef, 0, $allow_rename);
"""


@pytest.fixture
def other(pydir: PyDir, tmp_path: Path) -> Store:
    return pydir.store(tmp_path / "other")


@pytest.mark.contract("C-091")
@pytest.mark.method("volume_export", "volume_import")
@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk"])
def test_contents_survive(store: Store, other: Store, tmp_path: Path, format_: str) -> None:
    volid = store.alloc(100, format_, 5 * 1024)
    store.write(volid, 7)
    store.write(volid, 8, "3M")
    target = other.volid("102/vm-102-disk-4.raw")
    assert store.node.perl(TRANSFER, volid, target, "raw+size", 0, 0).ok() == target
    assert other.size(target) == 5 * MIB
    assert content_hash(store.file(volid), tmp_path) == content_hash(other.file(target), tmp_path)
    assert other.parse(target)[2] == 102


@pytest.mark.contract("C-091")
def test_the_header_is_a_little_endian_count(store: Store, tmp_path: Path) -> None:
    volid = store.alloc(100, "raw", 1028)
    store.node.perl(TO_FILE, volid, "raw+size", tmp_path / "stream", 0).ok()
    stream = (tmp_path / "stream").read_bytes()
    assert stream[:8] == struct.pack("<Q", 1028 * 1024)
    assert stream[8:] == store.file(volid).read_bytes()


@pytest.mark.contract("C-091")
@pytest.mark.method("volume_export", "volume_import")
def test_snapshots_and_directories_travel(store: Store, other: Store) -> None:
    volid = store.alloc(100, "qcow2")
    store.write(volid, 1)
    store("volume_snapshot", volid, "one")
    store.write(volid, 2)
    target = other.volid(volid.split(":")[1])
    assert store.node.perl(TRANSFER, volid, target, "qcow2+size", 1, 0).ok() == target
    assert other.reads(target, 2)
    other("volume_snapshot_rollback", target, "one")
    assert other.reads(target, 1)
    subvol = store.alloc(100, "subvol", 0)
    (store.file(subvol) / "etc").mkdir()
    (store.file(subvol) / "etc/hostname").write_text("ct\n")
    target = other.volid(subvol.split(":")[1])
    assert store.node.perl(TRANSFER, subvol, target, "tar+size", 0, 0).ok() == target
    assert (other.file(target) / "etc/hostname").read_text() == "ct\n"


@pytest.mark.contract("C-017")
@pytest.mark.method("volume_export_formats", "volume_import_formats")
def test_formats_on_offer(store: Store) -> None:
    qcow, raw, subvol = (f"100/vm-100-disk-0.{f}" for f in ("qcow2", "raw", "subvol"))
    cases: list[tuple[str, list[Any], list[str], list[str]]] = [
        (raw, [None, None, 0], ["raw+size"], ["raw+size"]),
        (raw, [None, None, 1], [], []),
        (raw, ["snap", None, 0], [], ["raw+size"]),
        (raw, [None, "base", 0], [], []),
        (qcow, [None, None, 0], ["raw+size"], ["raw+size"]),
        (qcow, [None, None, 1], ["qcow2+size"], ["qcow2+size"]),
        (subvol, [None, None, 0], ["tar+size"], ["tar+size"]),
        ("iso/a.iso", [None, None, 0], ["raw+size"], ["raw+size"]),
        ("backup/a.vma", [None, None, 0], [], []),
    ]
    for volname, args, exported, imported in cases:
        volid = store.volid(volname)
        for direction, expected in (("export", exported), ("import", imported)):
            found = store(f"volume_{direction}_formats", volid, *args, context="list")
            assert found == expected, (direction, volname, args)


def serve(kind: str, tmp_path: Path, stream: bytes) -> tuple[object, Callable[[], None]]:
    """One connection that sends *stream* and ends."""
    if kind == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        where: object = listener.getsockname()[1]
    else:
        where = str(tmp_path / "s.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(where))
        listener.listen(1)

    def send() -> None:
        with closing(listener), listener.accept()[0] as connection:
            try:
                connection.sendall(stream)
            except (BrokenPipeError, ConnectionResetError):
                pass

    thread = threading.Thread(target=send)
    thread.start()
    return where, thread.join


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Callable[[str, bytes], object]]:
    ends: list[Callable[[], None]] = []

    def offer(kind: str, stream: bytes) -> object:
        if kind in ("file", "pipe"):
            (tmp_path / "stream").write_bytes(stream)
            return tmp_path / "stream"
        where, join = serve(kind, tmp_path, stream)
        ends.append(join)
        return where

    yield offer
    for join in ends:
        join()


def raw_stream(size: int, present: int | None = None) -> bytes:
    return struct.pack("<Q", size) + b"\x5a" * (size if present is None else present)


@pytest.mark.contract("C-092")
@pytest.mark.method("volume_import")
@pytest.mark.parametrize("kind", ["file", "pipe", "tcp", "unix"])
def test_import_from_anything(
    store: Store, kind: str, feed: Callable[[str, bytes], object]
) -> None:
    where = feed(kind, raw_stream(3 * MIB))
    volid = store.volid("100/vm-100-disk-0.raw")
    assert store.node.perl(FROM, kind, where, volid, "raw+size", 0).ok() == volid
    assert store.file(volid).read_bytes() == b"\x5a" * (3 * MIB)


@pytest.mark.contract("C-060", "C-092")
@pytest.mark.parametrize("kind", ["pipe", "tcp", "unix"])
@pytest.mark.parametrize("present", [-1, 0, MIB])
def test_a_stream_that_ends_early(
    store: Store, kind: str, present: int, feed: Callable[[str, bytes], object]
) -> None:
    stream = raw_stream(3 * MIB, present) if present >= 0 else b"\x00\x00"
    where = feed(kind, stream)
    volid = store.volid("100/vm-100-disk-0.raw")
    result = store.node.perl(FROM, kind, where, volid, "raw+size", 0)
    assert result.error is not None
    assert result.error.startswith("import: ")
    assert store.images() == []


@pytest.mark.contract("C-060")
def test_an_import_that_is_interrupted_leaves_nothing(pydir: PyDir, store: Store) -> None:
    volid = store.volid("100/vm-100-disk-0.raw")
    result = store.node.perl(
        """
        pipe(my $reader, my $writer) or die "pipe: $!";
        syswrite($writer, pack('Q<', 1 << 20) . 'x' x 4096);
        local $SIG{ALRM} = sub { die "interrupted\n" };
        alarm(1);
        PVE::Storage::volume_import(
            PVE::Storage::config(), $reader, $ARGS[0], 'raw+size', undef, undef, 0, 0);
        """,
        volid,
    )
    assert result.error == "interrupted\n"
    ends = time.monotonic() + 5
    while store.images() and time.monotonic() < ends:
        time.sleep(0.02)
    assert store.images() == []


@pytest.mark.contract("C-093")
def test_import_under_a_name_that_is_taken(
    store: Store, feed: Callable[[str, bytes], object]
) -> None:
    volid = store.alloc(100, "raw", 4)
    before = store.file(volid).read_bytes()
    where = feed("file", raw_stream(64 << 10))
    result = store.node.perl(FROM, "file", where, volid, "raw+size", 0)
    assert result.error == f"file '{store.file(volid)}' already exists\n"
    renamed = store.node.perl(FROM, "file", where, volid, "raw+size", 1).ok()
    assert renamed == store.volid("100/vm-100-disk-1.raw")
    assert store.file(volid).read_bytes() == before
    assert store.size(renamed) == 64 << 10


@pytest.mark.contract("C-094")
@pytest.mark.method("volume_export")
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_stdout_carries_the_stream_alone(store: Store, format_: str) -> None:
    """As ``pvesm export … -`` does it, which hands over STDOUT."""
    volid = store.alloc(100, format_, 64)
    result = store.node.perl(
        r"""
        PVE::Storage::volume_export(
            PVE::Storage::config(), \*STDOUT, $ARGS[0], 'raw+size', undef, undef, 0);
        return;
        """,
        volid,
    )
    result.ok()
    assert result.stdout == struct.pack("<Q", 64 << 10).decode() + "\0" * (64 << 10)


@pytest.mark.contract("C-095")
@pytest.mark.method("volume_export")
def test_a_reader_that_goes_away(store: Store) -> None:
    volid = store.alloc(100, "qcow2", 8192)
    store("volume_snapshot", volid, "one")
    before = store.images()
    result = store.node.perl(
        """
        pipe(my $reader, my $writer) or die "pipe: $!";
        my $child = fork() // die "fork: $!";
        if (!$child) {
            close($writer);
            sysread($reader, my $header, 8);
            POSIX::_exit(0);
        }
        close($reader);
        local $SIG{PIPE} = 'IGNORE';
        PVE::Storage::volume_export(
            PVE::Storage::config(), $writer, $ARGS[0], 'raw+size', undef, undef, 0);
        """,
        volid,
    )
    assert result.error is not None
    assert store.images() == before
    assert list(store("volume_snapshot_info", volid)) == ["one"]
    mapped = [p for p in Path("/tmp").glob("pve-pybridge-*/nbd") if p.stat().st_mtime > time.time()]
    assert mapped == []
    store.write(volid, 1)  # and nobody holds its lock


@pytest.mark.contract("C-095")
def test_no_export_of_a_snapshot(store: Store, tmp_path: Path) -> None:
    volid = store.alloc(100, "qcow2")
    store("volume_snapshot", volid, "one")
    code = TO_FILE.replace("undef, undef", "'one', undef")
    result = store.node.perl(code, volid, "raw+size", tmp_path / "stream", 0)
    assert result.error == "volume export format raw+size not available for pydir\n"
    assert (tmp_path / "stream").read_bytes() == b""
