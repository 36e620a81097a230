# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""H. Transfer: streams out of and into volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..disk import MIB, is_there, opened
from ..outcome import NotApplicable
from ..subject import SECOND, STOREID, Answer, Subject
from .snapshots import snapshot_volume

HEADER: Final = 8
# Called with & because the genuine functions have prototypes, which count @rest as one argument.
EXPORT: Final = """
    use POSIX ();
    my ($volid, $format, $snap, $file, $how) = @ARGS;
    my $cfg = PVE::Storage::config();
    my @rest = ($volid, $format, $snap, undef, 0);
    if ($how eq 'file') {
        open(my $fh, '>', $file) or die "$file: $!\n";
        &PVE::Storage::volume_export($cfg, $fh, @rest);
        close($fh) or die "$file: $!\n";
    } elsif ($how eq 'stdout') { # as pvesm export … - does it
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            open(STDOUT, '>', $file) or POSIX::_exit(1);
            eval { &PVE::Storage::volume_export($cfg, \\*STDOUT, @rest) };
            warn $@ if $@;
            POSIX::_exit($@ ? 1 : 0);
        }
        waitpid($pid, 0);
        die "the export failed\n" if $?;
    } else { # a reader that goes away
        pipe(my $reader, my $writer) or die "pipe: $!\n";
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            close($writer);
            sysread($reader, my $some, 4096);
            POSIX::_exit(0);
        }
        close($reader);
        local $SIG{PIPE} = 'IGNORE';
        &PVE::Storage::volume_export($cfg, $writer, @rest);
    }
    return;
"""
IMPORT: Final = """
    use POSIX ();
    use IO::Socket::INET;
    use Socket;
    my ($volid, $format, $file, $how, $limit, $rename) = @ARGS;
    my $cfg = PVE::Storage::config();
    my ($in, $out, $listener);
    if ($how eq 'tcp') {
        $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')
            or die "listen: $!\n";
    } elsif ($how eq 'unix') {
        socketpair($in, $out, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!\n";
    } else {
        pipe($in, $out) or die "pipe: $!\n";
    }
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) { # the sender
        $SIG{PIPE} = 'DEFAULT';
        alarm(25);
        close($in) if $in;
        $out = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport())
            if $listener;
        open(my $fh, '<', $file) or POSIX::_exit(1);
        while ($limit > 0 && sysread($fh, my $data, $limit < 65536 ? $limit : 65536)) {
            $limit -= length($data);
            while (length($data)) {
                my $sent = syswrite($out, $data) // POSIX::_exit(1);
                substr($data, 0, $sent, '');
            }
        }
        POSIX::_exit(0);
    }
    close($out) if $out;
    $in = $listener->accept() if $listener;
    my $new = eval {
        PVE::Storage::volume_import($cfg, $in, $volid, $format, undef, undef, 0, $rename)
    };
    my $err = $@;
    close($in);
    kill('KILL', $pid);
    waitpid($pid, 0);
    die $err if $err;
    return $new;
"""


def _stream_format(s: Subject, volid: str, snapshot: str | None = None) -> str:
    s.need("volume_export")
    found = s.ask("volume_export_formats", volid, snapshot, None, 0, context="list")
    if not found:
        what = "snapshots" if snapshot else "volumes"
        raise NotApplicable(f"volume_export_formats says that {what} can't be exported")
    return "raw+size" if "raw+size" in found else str(found[0])


def _export(
    s: Subject, volid: str, format_: str, how: str = "file", snapshot: str | None = None
) -> tuple[Path, Answer]:
    file = s.node.base / "stream"
    text = f"volume_export($cfg, $fh, '{volid}', '{format_}', {snapshot or 'undef'}, undef, 0)"
    text += {"file": "", "stdout": "  # to STDOUT", "early": "  # the reader leaves early"}[how]
    args = (volid, format_, snapshot, str(file), how)
    return file, s.run(text, EXPORT, *args, function="volume_export")


def _import(
    s: Subject,
    volid: str,
    format_: str,
    file: Path,
    how: str = "pipe",
    limit: int = 1 << 60,
    rename: int = 0,
) -> Answer:
    what = f" after {limit} bytes the sender ends" if limit < 1 << 60 else ""
    text = f"volume_import($cfg, $fh, '{volid}', '{format_}', undef, undef, 0, {rename})"
    args = (volid, format_, str(file), how, limit, rename)
    answer = s.run(f"{text}  # {how}{what}", IMPORT, *args, function="volume_import")
    if answer.error is None:
        s.own(answer.value)
    return answer


def _target(s: Subject, storeid: str, vmid: int) -> str:
    name = s.named("disk-7", vmid=vmid)
    return f"{storeid}:{vmid}/{name}" if s.has_path else f"{storeid}:{name}"


def _source(s: Subject) -> tuple[str, str]:
    """A volume with known data, and the format to send it in."""
    volid = s.volume(2048)
    format_ = _stream_format(s, volid)
    with opened(s, volid) as disk:
        disk.fill(0x41)
        disk.fill(0x42, MIB)
    return volid, format_


def _exported(s: Subject) -> tuple[Path, str]:
    """A good stream, for what comes after."""
    volid, format_ = _source(s)
    s.need("volume_import")
    with s.preparing():
        file, answer = _export(s, volid, format_)
        if answer.error is not None:
            s.fail("the export failed")
    return file, format_


def there_and_back(s: Subject) -> None:
    """C-091: data and size survive; the header is the size."""
    volid, format_ = _source(s)
    file, answer = _export(s, volid, format_)
    if answer.error is not None:
        s.fail(f"'{format_}' is offered, and the export failed")
    if format_ == "raw+size":
        size = int(s.ask("volume_size_info", volid, 5))
        head = int.from_bytes(file.read_bytes()[:HEADER], "little")
        if head != size:
            s.fail(f"the stream must begin with the size, {size}, as 8 bytes; they say {head}")
        if file.stat().st_size != HEADER + size:
            s.fail(f"header and data are {HEADER + size} bytes, the stream has"
                   f" {file.stat().st_size}")  # fmt: skip
    s.need("volume_import")
    storeid = SECOND if s.second else STOREID
    formats = s.ask("volume_import_formats", _target(s, storeid, s.vmid + 1), None, None, 0,
                    context="list")  # fmt: skip
    if format_ not in formats:
        s.fail(f"'{format_}' is exported, and not among the formats to import")
    answer = _import(s, _target(s, storeid, s.vmid + 1), format_, file)
    if answer.error is not None:
        s.fail("what was exported can't be imported")
    with opened(s, answer.value, storeid=storeid) as disk:
        if not (disk.holds(0x41) and disk.holds(0x42, MIB)):
            s.fail("the imported volume has other data")


def any_source(s: Subject) -> None:
    """C-092: pipe, TCP, Unix socket; half a stream leaves nothing."""
    file, format_ = _exported(s)
    for number, how in enumerate(("pipe", "tcp", "unix"), 1):
        vmid = s.vmid + number
        answer = _import(s, _target(s, STOREID, vmid), format_, file, how)
        if answer.error is not None:
            s.fail(f"the import from a {how} failed")
        with opened(s, answer.value) as disk:
            if not disk.holds(0x42, MIB):
                s.fail(f"the volume imported from a {how} has other data")
    vmid = s.vmid + 9
    for limit in (4, HEADER + MIB):
        answer = _import(s, _target(s, STOREID, vmid), format_, file, limit=limit)
        if answer.error is None:
            s.fail("the stream ended early, and the import succeeded")
        left = s.volids(vmid)
        if left:
            s.fail(f"the import failed and left {left}")


def taken_names(s: Subject) -> None:
    """C-093: refused, or renamed where that is allowed; never overwritten."""
    file, format_ = _exported(s)
    target = _target(s, STOREID, s.vmid + 1)
    first = _import(s, target, format_, file)
    if first.error is not None:
        s.fail("the import failed")
    if first.value != target:
        s.fail(f"the name is free, so it must become '{target}'")
    with opened(s, target) as disk:
        disk.fill(0x43)
    second = _import(s, target, format_, file)
    if second.error is None:
        s.fail("the name is taken, and allow_rename is 0")
    third = _import(s, target, format_, file, rename=1)
    if third.error is not None:
        s.fail("the name is taken and allow_rename is 1: choose another")
    listed = s.volids(s.vmid + 1)
    if third.value == target or third.value not in listed or len(listed) != 2:
        s.fail(f"the answer must be the new volume's own ID; the guest has {listed}")
    with opened(s, target) as disk:
        if not disk.holds(0x43):
            s.fail("the import overwrote the volume that had the name")


def only_the_stream(s: Subject) -> None:
    """C-094: no byte more, no byte less."""
    volid, format_ = _source(s)
    file, answer = _export(s, volid, format_)
    if answer.error is not None:
        s.fail("the export failed")
    plain = file.read_bytes()
    file, answer = _export(s, volid, format_, "stdout")
    if answer.error is not None:
        s.fail("the export to STDOUT failed")
    if file.read_bytes() != plain:
        s.fail(f"STDOUT got {file.stat().st_size} bytes, the stream has {len(plain)}")
    if format_ == "raw+size":
        size = int(s.ask("volume_size_info", volid, 5))
        if len(plain) != HEADER + size:
            s.fail(f"the stream has {len(plain)} bytes, header and volume {HEADER + size}")


def early_readers(s: Subject) -> None:
    """C-095: no snapshot and no mapping stays behind."""
    s.need("volume_export", "volume_snapshot")
    volid = snapshot_volume(s, 4096)
    with s.preparing():
        s.ask("volume_snapshot", volid, "check1")
    format_ = _stream_format(s, volid, "check1")
    always = is_there(s, volid, "check1"), is_there(s, volid)
    _, answer = _export(s, volid, format_, "early", "check1")
    if answer.error is None:
        s.remark("the export succeeded although its reader had gone")
    now = is_there(s, volid, "check1"), is_there(s, volid)
    if now != always:
        s.fail("the snapshot or volume is still attached after the export")
    if s.has("volume_snapshot_info"):
        found = [name for name in s.ask("volume_snapshot_info", volid) if name != "current"]
        if found != ["check1"]:
            s.fail(f"'check1' was there before, now {found}")


CHECKS: Final = {
    "C-091": there_and_back,
    "C-092": any_source,
    "C-093": taken_names,
    "C-094": only_the_stream,
    "C-095": early_readers,
}
