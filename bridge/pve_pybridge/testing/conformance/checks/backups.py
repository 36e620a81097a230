# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""I. Backups and attributes, and many callers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..outcome import NotApplicable
from ..subject import STOREID, Subject

PROCESSES: Final = 20
STAMPS: Final = ("2026_01_01-00_00_00", "2026_01_02-00_00_00", "2026_01_03-00_00_00")
PRUNE: Final = """
    my ($storeid, $vmid, $dryrun) = @ARGS;
    my @log;
    my $found = PVE::Storage::prune_backups(
        PVE::Storage::config(), $storeid, { 'keep-last' => 1 }, $vmid, 'qemu', $dryrun,
        sub { push @log, [@_] },
    );
    return [$found, \\@log];
"""
TWENTY: Final = """
    use POSIX ();
    my ($storeid, $vmid, $format, $kib, $count, $frees) = @ARGS;
    my $cfg = PVE::Storage::config();
    my @pipes;
    for my $i (1 .. $count) {
        pipe(my $reader, my $writer) or die "pipe: $!\n";
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            my $volid = '';
            my $step = 'vdisk_alloc';
            eval {
                $volid = PVE::Storage::vdisk_alloc($cfg, $storeid, $vmid, $format, undef, $kib);
                $step = 'activate_volumes';
                PVE::Storage::activate_volumes($cfg, [$volid]);
                $step = 'path';
                PVE::Storage::path($cfg, $volid);
                $step = 'vdisk_list';
                my $list = PVE::Storage::vdisk_list($cfg, $storeid, $vmid)->{$storeid};
                die "'$volid' is not listed\n" if !grep { $_->{volid} eq $volid } @$list;
                $step = 'status';
                die "inactive\n" if !PVE::Storage::storage_info($cfg)->{$storeid}->{active};
                $step = 'deactivate_volumes';
                PVE::Storage::deactivate_volumes($cfg, [$volid]);
                $step = 'vdisk_free';
                PVE::Storage::vdisk_free($cfg, $volid) if $frees;
            };
            syswrite($writer, $@ ? "$step died: $@" : "$volid");
            POSIX::_exit(0);
        }
        push @pipes, [$reader, $pid];
    }
    my @found;
    for my $pipe (@pipes) {
        sysread($pipe->[0], my $text, 4096);
        waitpid($pipe->[1], 0);
        push @found, $text // 'no answer';
    }
    return \\@found;
"""


def _backups(s: Subject) -> list[str]:
    """Three backups of the guest, as vzdump leaves them in a directory storage; oldest first."""
    if "backup" not in s.manifest["content"][0]:
        raise NotApplicable("the storage holds no backups")
    if not s.has_path:
        raise NotApplicable("backups can't be put there without a backup job")
    directory = Path(s.ask("get_backup_dir", STOREID))
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for stamp in STAMPS:
        name = f"vzdump-qemu-{s.vmid}-{stamp}.vma.zst"
        (directory / name).write_bytes(b"no real backup")
        found.append(s.own(f"{STOREID}:backup/{name}"))
    return found


def pruning(s: Subject) -> None:
    """C-100: dry, then for real; the protected one stays."""
    s.need("prune_backups")
    oldest, middle, newest = _backups(s)
    can_protect = s.attempt("update_volume_attribute", middle, "protected", 1).error is None
    marks = {oldest: "remove", middle: "protected" if can_protect else "remove", newest: "keep"}
    for dryrun in (1, 0):
        text = (
            f"prune_backups($cfg, '{STOREID}', {{ 'keep-last' => 1 }}, {s.vmid}, 'qemu', {dryrun})"
        )
        answer = s.run(text, PRUNE, STOREID, s.vmid, dryrun, function="prune_backups")
        if answer.error is not None:
            s.fail("pruning failed")
        found, log = answer.value
        if {row["volid"]: row["mark"] for row in found} != marks:
            s.fail(f"with keep-last=1 the marks are {marks}")
        left = _backup_volids(s)
        kept = [v for v in (oldest, middle, newest) if dryrun or marks[v] != "remove"]
        if left != sorted(kept):
            s.fail(f"after {'a dry run' if dryrun else 'pruning'} {left} are left, not {kept}")
    if not log:
        s.remark("pruning says nothing to its log function")
    if can_protect:
        s.ask("update_volume_attribute", middle, "protected", 0)


def _backup_volids(s: Subject) -> list[str]:
    rows = s.ask("volume_list", STOREID, s.vmid, "backup")
    return sorted(str(row["volid"]) for row in rows)


def attributes(s: Subject) -> None:
    """C-101: kept where supported, refused where not."""
    volid = s.volume()
    unknown = s.attempt("get_volume_attribute", volid, "check-unknown")
    if unknown.error is not None or unknown.value is not None:
        s.fail("an attribute that isn't supported reads as undef")
    s.refused("update_volume_attribute", volid, "check-unknown", "1", why="there is no such one")
    _keeps(s, volid, "notes", "one\ntwö")
    try:
        backup = _backups(s)[0]
    except NotApplicable:
        return
    _keeps(s, backup, "notes", "one\ntwö")
    if _keeps(s, backup, "protected", 1):
        s.refused("vdisk_free", backup, why="the backup is protected")
        if backup not in _backup_volids(s):
            s.fail("freeing a protected backup was refused, and it is gone")
        s.ask("update_volume_attribute", backup, "protected", 0)


def _keeps(s: Subject, volid: str, attribute: str, value: Any) -> bool:
    """Whether it is supported; then it must be there when asked for."""
    if s.attempt("update_volume_attribute", volid, attribute, value).error is not None:
        if s.ask("get_volume_attribute", volid, attribute):
            s.fail(f"'{attribute}' can't be set, and has a value")
        return False
    if str(s.ask("get_volume_attribute", volid, attribute)) != str(value):
        s.fail(f"'{attribute}' was set to {value!r}")
    return True


def twenty_at_once(s: Subject) -> None:
    """C-103: the life of a volume in twenty processes."""
    s.need("alloc_image")
    kib = 0 if s.format == "subvol" else 1024
    text = f"{PROCESSES} processes at once: alloc, activate, path, list, status, deactivate, free"
    args = (STOREID, s.vmid, s.format, kib, PROCESSES, int(s.has("free_image")))
    answer = s.run(text, TWENTY, *args, timeout=3 * s.settings.timeout)
    if answer.error is not None:
        s.fail("the calls failed")
    failed = [said for said in answer.value if " died: " in said or said == "no answer"]
    late = [said for said in failed if "lock request timeout" in said]
    if late:
        s.remark(
            f"{len(late)} of {PROCESSES} gave up waiting for PVE's lock: what it holds is slow"
        )
    failed = [said for said in failed if said not in late]
    if failed:
        s.fail(f"{len(failed)} of {PROCESSES} failed, the first: {failed[0].strip()}")
    for volid in answer.value:
        s.own(volid)
    if s.has("free_image") and not late and s.volids():
        s.fail(f"all volumes were freed, {s.volids()} are left")


CHECKS: Final = {
    "C-100": pruning,
    "C-101": attributes,
    "C-103": twenty_at_once,
}
