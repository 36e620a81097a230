# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""E. Volume life cycle: resize, rename, templates, clones, and what features promise."""

from __future__ import annotations

from typing import Final

from ..disk import is_device, opened
from ..outcome import NotApplicable
from ..subject import Subject

LOCKED: Final = ("vdisk_alloc", "vdisk_clone", "vdisk_create_base", "vdisk_free", "rename_volume")
LOCK_SECONDS: Final = 55.0
FEATURES: Final = ("snapshot", "clone", "copy", "template", "rename")


def resizing(s: Subject) -> None:
    """C-066: bytes, at once, and never down."""
    s.need("volume_resize")
    volid = s.volume(4096)
    s.ask("activate_volumes", [volid])
    running = 4711 if is_device(str(s.ask("path", volid))) else 0
    for wanted in (8 << 20, (8 << 20) + 4096):
        s.ask("volume_resize", volid, wanted, running)
        with opened(s, volid) as disk:
            real = disk.size()
        if real < wanted:
            s.fail(f"volume_resize to {wanted} returned, the device has {real} bytes")
        if real >= wanted + (128 << 20):
            s.fail(f"volume_resize to {wanted} made it {real} bytes")
        s.ask("activate_volumes", [volid])
    s.attempt("volume_resize", volid, 4 << 20, running)
    with opened(s, volid) as disk:
        if disk.size() < wanted:
            s.fail(f"volume_resize shrank it to {disk.size()} bytes")


def renaming(s: Subject) -> None:
    """C-067: the data stays, the name goes."""
    volid = s.volume()
    if not s.feature("rename", volid):
        raise NotApplicable("volume_has_feature says that volumes can't be renamed")
    with opened(s, volid) as disk:
        disk.fill(0x41)
    target = s.named("disk-5", vmid=s.vmid + 1)
    moved = s.own(s.ask("rename_volume", volid, s.vmid + 1, target))
    if not moved.endswith(target) or not moved.startswith(volid.partition(":")[0] + ":"):
        s.fail(f"it must become the volume ID of '{target}'")
    if s.volids():
        s.fail(f"the old name is still listed: {s.volids()}")
    if s.volids(s.vmid + 1) != [moved]:
        s.fail(f"'{moved}' is not listed: {s.volids(s.vmid + 1)}")
    with opened(s, moved) as disk:
        if not disk.holds(0x41):
            s.fail("the renamed volume has lost its data")
    other = s.volume()
    s.refused("rename_volume", other, s.vmid + 1, target, why="the target exists")
    with opened(s, moved) as disk:
        if not disk.holds(0x41):
            s.fail("the target of a refused rename has lost its data")
    chosen = s.own(s.ask("rename_volume", other, s.vmid + 2))
    if s.volids(s.vmid + 2) != [chosen]:
        s.fail(f"without a target name '{chosen}' was chosen, and is not listed")


def _base(s: Subject) -> str:
    volid = s.volume()
    if not s.feature("template", volid):
        raise NotApplicable("volume_has_feature says that volumes can't become templates")
    with opened(s, volid) as disk:
        disk.fill(0x41)
    with s.preparing():
        base = s.own(s.ask("vdisk_create_base", volid))
    if not s.feature("clone", base):
        raise NotApplicable("volume_has_feature says that templates can't be cloned")
    return base


def clone_names(s: Subject) -> None:
    """C-045: dependence shows in the name, or the plugin minds it itself."""
    base = _base(s)
    clone = s.own(s.ask("vdisk_clone", base, s.vmid + 1))
    name, vmid = s.parse(clone)[3:5]
    if name is not None:
        wanted = s.parse(base)[1:3]
        if name != wanted[0] or (vmid is not None and str(vmid) != str(wanted[1])):
            s.fail(f"the clone's base is {wanted}, its name says {[name, vmid]}")
    _free_base(s, base, clone)


def bases_in_use_stay(s: Subject) -> None:
    """C-064: through PVE, which looks at the names; protected backups have C-101."""
    s.need("free_image")
    base = _base(s)
    clone = s.own(s.ask("vdisk_clone", base, s.vmid + 1))
    _free_base(s, base, clone)


def _free_base(s: Subject, base: str, clone: str) -> None:
    answer = s.attempt("vdisk_free", base)
    if answer.error is not None and base not in s.volids():
        s.fail("freeing the base was refused, and it is gone")
    rows = s.volids(s.vmid + 1)
    if clone not in rows:
        s.fail(f"the clone '{clone}' went away with its base")
    with opened(s, clone) as disk:
        if not disk.holds(0x41):
            s.fail("the base was freed while a clone needs it")


def cloning(s: Subject) -> None:
    """C-068: the same data, then lives of their own."""
    base = _base(s)
    clone = s.own(s.ask("vdisk_clone", base, s.vmid + 1))
    other = s.own(s.ask("vdisk_clone", base, s.vmid + 2))
    with opened(s, clone) as disk:
        if not disk.holds(0x41):
            s.fail("the clone has other data than its base")
        disk.fill(0x42)
    with opened(s, other) as disk:
        if not disk.holds(0x41):
            s.fail("what was written to one clone shows in another")
    with opened(s, clone) as disk:
        if not disk.holds(0x42):
            s.fail("the clone lost what was written to it")


def features_are_true(s: Subject) -> None:
    """C-069: each yes is done, each no refused."""
    volid = s.volume()
    says = {name: s.feature(name, volid) for name in FEATURES}
    _exercise(s, says["snapshot"], "snapshot", "volume_snapshot", volid, "check1")
    if says["snapshot"]:
        _features_of_snapshots(s, volid)
        s.ask("volume_snapshot_delete", volid, "check1")
    if says["copy"]:
        with opened(s, volid) as disk:
            disk.holds(0)
    target = s.named("disk-9", vmid=s.vmid + 1)
    renamed = _exercise(s, says["rename"], "rename", "rename_volume", volid, s.vmid + 1, target)
    volid = str(renamed or volid)
    base = _exercise(s, says["template"], "template", "vdisk_create_base", volid)
    if base is None:
        return
    clones = s.feature("clone", base)
    _exercise(s, clones, "clone of a base", "vdisk_clone", base, s.vmid + 2)
    if s.feature("template", base):
        s.fail("a base image is a template already")


def _exercise(s: Subject, yes: bool, feature: str, function: str, *args: object) -> str | None:
    answer = s.attempt(function, *args)
    made = None if answer.error is not None else answer.value
    if isinstance(made, str):
        s.own(made)
    if yes and answer.error is not None:
        s.fail(f"volume_has_feature promises '{feature}'")
    if not yes and answer.error is None:
        s.fail(f"volume_has_feature denies '{feature}', and it was done all the same")
    return made


def _features_of_snapshots(s: Subject, volid: str) -> None:
    if s.feature("copy", volid, "check1"):
        with opened(s, volid, "check1") as disk:
            disk.holds(0)
    yes = s.feature("clone", volid, "check1")
    clone = _exercise(s, yes, "clone of a snapshot", "vdisk_clone", volid, s.vmid + 2, "check1")
    if clone is not None and s.has("free_image"):
        s.ask("vdisk_free", clone)  # it may hold on to the snapshot


def fresh_volumes_are_zero(s: Subject) -> None:
    """C-070: reused space included."""
    volid = s.volume(8192)
    if not s.feature("sparseinit", volid):
        raise NotApplicable("volume_has_feature doesn't promise zeros (sparseinit)")
    for _ in range(2):
        with opened(s, volid) as disk:
            size = disk.size()
            if not disk.holds(0, 0, size):
                s.fail("sparseinit is promised, and a new volume doesn't read as zeros")
            disk.fill(0xA5, 0, 8 << 20)
        s.need("free_image")
        s.ask("vdisk_free", volid)
        volid = s.volume(8192)
    with opened(s, volid) as disk:
        if not disk.holds(0, 0, disk.size()):
            s.fail("sparseinit is promised, and a new volume shows a freed one's data")


def locked_calls_are_quick(s: Subject) -> None:
    """C-071: over all calls of the run; PVE's lock on a shared storage ends after 60 s."""
    slow = [a for a in s.history if a.function in LOCKED and a.call.seconds > LOCK_SECONDS]
    if slow:
        s.calls = [slow[0].call]
        s.fail(f"it took {slow[0].call.seconds:.0f} s under the storage's lock")


CHECKS: Final = {
    "C-045": clone_names,
    "C-064": bases_in_use_stay,
    "C-066": resizing,
    "C-067": renaming,
    "C-068": cloning,
    "C-069": features_are_true,
    "C-070": fresh_volumes_are_zero,
}
LAST: Final = {"C-071": locked_calls_are_quick}
