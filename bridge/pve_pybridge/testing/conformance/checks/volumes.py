# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""E. Volume life cycle: allocate and free."""

from __future__ import annotations

import os
from typing import Final

from ..disk import opened
from ..outcome import NotApplicable
from ..subject import STOREID, Subject
from .snapshots import snapshot_volume

PVE_FORMATS: Final = ("raw", "qcow2", "vmdk", "subvol", "qed")
HUGE_KIB: Final = 2**52
"""4 EiB: few backends have room for that, and a failure must leave nothing."""
PARALLEL: Final = """
    use POSIX ();
    my ($storeid, $vmid, $format, $kib, $count) = @ARGS;
    my $cfg = PVE::Storage::config();
    my @pipes;
    for my $i (1 .. $count) {
        pipe(my $reader, my $writer) or die "pipe: $!\n";
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            my $volid = eval {
                PVE::Storage::vdisk_alloc($cfg, $storeid, $vmid, $format, undef, $kib)
            };
            syswrite($writer, $volid // "died: $@");
            POSIX::_exit(0);
        }
        push @pipes, [$reader, $pid];
    }
    my @found;
    for my $pipe (@pipes) {
        my ($reader, $pid) = @$pipe;
        sysread($reader, my $text, 4096);
        waitpid($pid, 0);
        push @found, $text // '';
    }
    return \\@found;
"""


def lowest_free_name(s: Subject) -> None:
    """C-055: numbers from 0, gaps first, nobody's twice."""
    s.need("alloc_image")
    first = _new_number(s, 0)
    _new_number(s, 1)
    if s.has("free_image"):
        s.ask("vdisk_free", first)
        _new_number(s, 0)
    kib = 0 if s.format == "subvol" else 1024
    text = f"8 processes at once: vdisk_alloc($cfg, '{STOREID}', {s.vmid + 1}, …, undef, {kib})"
    answer = s.run(text, PARALLEL, STOREID, s.vmid + 1, s.format, kib, 8, function="vdisk_alloc")
    names = [s.own(name) for name in answer.value or []]
    if any(name.startswith("died") for name in names):
        s.fail("an allocation beside others failed")
    if len(set(names)) != 8:
        s.fail("two allocations gave the same name")


def _new_number(s: Subject, number: int) -> str:
    kind = "subvol" if s.format == "subvol" else "vm"
    wanted = f"{kind}-{s.vmid}-disk-{number}"
    answer = s.alloc()
    if answer.error is not None:
        s.fail(f"'{wanted}' is free, and nothing was allocated")
    name = str(answer.value).rpartition("/")[2].rpartition(":")[2]
    if name.partition(".")[0] != wanted:
        s.fail(f"the lowest free name is '{wanted}', it became '{name}'")
    return str(answer.value)


def given_names(s: Subject) -> None:
    """C-056: core's names are kept; taken and foreign ones refused."""
    s.need("alloc_image")
    for rest in ("cloudinit", "state-before", "fleece-0", "disk-7"):
        name = s.named(rest)
        answer = s.alloc(name=name)
        if answer.error is not None:
            s.fail(f"the name '{name}' comes from core and must be taken")
        if str(answer.value).rpartition("/")[2].rpartition(":")[2] != name:
            s.fail(f"'{name}' was asked for")
    again = s.alloc(name=s.named("disk-7"))
    if again.error is None:
        s.fail("the name exists already")
    foreign = s.alloc(name=s.named("disk-8", vmid=s.vmid + 1))
    if foreign.error is None:
        s.fail(f"the name belongs to guest {s.vmid + 1}, the volume was for {s.vmid}")


def _size(s: Subject, volid: str) -> int:
    if s.has("volume_size_info"):
        return int(s.ask("volume_size_info", volid, 5))
    row = s.ask("vdisk_list", STOREID, s.vmid, [volid])[STOREID][0]
    return int(row.get("size", row.get("approximate-size", 0)))


def _needs_sizes(s: Subject) -> None:
    s.need("alloc_image")
    if s.format == "subvol":
        raise NotApplicable("volumes of this storage have no size")


def sizes_are_bytes(s: Subject) -> None:
    """C-057: at least what was asked for, and less than a unit more."""
    _needs_sizes(s)
    unit = max(_size(s, s.volume(1)), 1024)
    if unit > 128 << 20:
        s.fail(f"1 KiB was asked for, {unit} bytes were allocated")
    for kib in (4096, 5000, 65536):
        got, wanted = _size(s, s.volume(kib)), kib << 10
        if got < wanted:
            s.fail(f"{wanted} bytes were asked for, {got} allocated")
        if got >= wanted + unit:
            s.fail(
                f"{wanted} bytes were asked for, {got} allocated: more than a unit ({unit}) above"
            )


def odd_sizes(s: Subject) -> None:
    """C-058: EFI disks, fractions, and more than there is."""
    _needs_sizes(s)
    for kib in (1, 528, 4096, 1.5, 2**36):
        answer = s.alloc(kib)
        if answer.error is not None:
            if kib < 2**30:
                s.fail(f"{kib} KiB must be allocated")
            if answer.internal:
                s.remark(f"what is too large is refused with a bug of its own: {answer.error}")
            continue
        got = _size(s, str(answer.value))
        if got < kib * 1024:
            s.fail(f"{kib} KiB are {int(kib * 1024)} bytes, {got} were allocated")


def wrong_formats_die(s: Subject) -> None:
    """C-059: before anything is made."""
    s.need("alloc_image")
    for format_ in PVE_FORMATS:
        if format_ in s.formats:
            continue
        answer = s.alloc(format=format_)
        if answer.error is None:
            s.fail(f"the storage has the formats {s.formats}, '{format_}' must be refused")
        left = s.volids()
        if left:
            s.fail(f"an allocation with an unsupported format left {left}")


def failures_leave_nothing(s: Subject) -> None:
    """C-060: of an allocation that can't succeed; imports have C-092."""
    _needs_sizes(s)
    answer = s.alloc(HUGE_KIB)
    if answer.error is None:
        raise NotApplicable("the backend takes even 4 EiB, so no allocation fails here")
    left = s.volids()
    if left:
        s.fail(f"the allocation failed and left {left}")
    taken = s.named("disk-0")
    s.volume(name=taken)
    s.alloc(name=taken)
    if len(s.volids()) != 1:
        s.fail(f"an allocation under a taken name left {s.volids()}")


def freeing(s: Subject) -> None:
    """C-061: what is missing, and what is active."""
    s.need("free_image")
    volid = s.volume()
    s.ask("activate_volumes", [volid])
    path = str(s.ask("path", volid))
    answer = s.attempt("vdisk_free", volid)
    if answer.error is not None:
        s.ask("deactivate_volumes", [volid])
        s.ask("vdisk_free", volid)
    if path.startswith("/") and os.path.lexists(path):
        s.fail(f"the volume is gone, '{path}' is still there")
    if volid in s.volids():
        s.fail("the freed volume is still listed")
    again = s.attempt("vdisk_free", volid)
    if again.error is not None:
        s.fail("freeing a volume that is gone must not die")


def freeing_with_snapshots(s: Subject) -> None:
    """C-062: with the volume, or not at all."""
    s.need("free_image", "volume_snapshot")
    volid = snapshot_volume(s)
    s.ask("volume_snapshot", volid, "check1")
    answer = s.attempt("vdisk_free", volid)
    if answer.error is not None:
        if volid not in s.volids():
            s.fail("vdisk_free died after it had removed the volume")
        if "check1" not in s.ask("volume_snapshot_info", volid):
            s.fail("vdisk_free died after it had removed a snapshot")
        s.ask("volume_snapshot_delete", volid, "check1")
        return
    name = volid.rpartition("/")[2].rpartition(":")[2]
    again = s.volume(name=name, format=s.parse(volid)[6])
    if "check1" in s.ask("volume_snapshot_info", again):
        s.fail("a new volume of the same name has the freed one's snapshot")


def name_is_free_again(s: Subject) -> None:
    """C-063: at once, whatever is left to clean up."""
    s.need("free_image")
    name = s.named("disk-3")
    volid = s.volume(name=name)
    with opened(s, volid) as disk:
        disk.fill(0x41)
    s.ask("vdisk_free", volid)
    if volid in s.volids():
        s.fail("the freed volume is still listed")
    again = s.alloc(name=name)
    if again.error is not None:
        s.fail("the name of a freed volume must be usable at once")
    if len(s.volids()) != 1:
        s.fail(f"one volume was made, {s.volids()} are listed")


def size_info(s: Subject) -> None:
    """C-065: what the device has; nothing of what isn't there."""
    s.need("volume_size_info")
    volid = s.volume(8192)
    told = int(s.ask("volume_size_info", volid, 5))
    with opened(s, volid) as disk:
        real = disk.size()
    if told != real:
        s.fail(f"volume_size_info says {told} bytes, the device has {real}")
    s.need("free_image")
    s.ask("vdisk_free", volid)
    answer = s.attempt("volume_size_info", volid, 5)
    if answer.error is None and answer.value is not None:
        s.fail("there is no such volume: die, or return undef")
    if answer.internal:
        s.fail("there is no such volume: None is no answer, raise StorageError")


CHECKS: Final = {
    "C-055": lowest_free_name,
    "C-056": given_names,
    "C-057": sizes_are_bytes,
    "C-058": odd_sizes,
    "C-059": wrong_formats_die,
    "C-060": failures_leave_nothing,
    "C-061": freeing,
    "C-062": freeing_with_snapshots,
    "C-063": name_is_free_again,
    "C-065": size_info,
}
