# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""G. Snapshots."""

from __future__ import annotations

import time
from typing import Final

from ..disk import opened
from ..outcome import Failed, NotApplicable
from ..subject import Answer, Subject

SNAPSHOT_SECONDS: Final = 10.0
POSSIBLE: Final = """
    my ($volid, $snap, $with) = @ARGS;
    my $blockers = $with ? [] : undef;
    my $possible = eval {
        PVE::Storage::volume_rollback_is_possible(PVE::Storage::config(), $volid, $snap, $blockers);
    };
    return { possible => $possible ? 1 : 0, error => $@ || undef, blockers => $blockers };
"""
NAMES: Final = ("vzdump", "__migration__", "a" * 40, "with-dash", "with_underscore")


def snapshot_volume(s: Subject, kib: float = 4096) -> str:
    """A volume of which the plugin says that it can have snapshots."""
    s.need("alloc_image")
    formats = [s.format, *(name for name in s.formats if name != s.format)]
    for format_ in formats:
        volid = s.volume(kib, format=format_)
        if s.feature("snapshot", volid) and format_ != "subvol":
            return volid
    raise NotApplicable("volume_has_feature says that volumes can't have snapshots")


def _with_two(s: Subject) -> str:
    """Holds A at snapshot check1, B at check2, and C now."""
    s.need("volume_snapshot")
    volid = snapshot_volume(s)
    for byte, snapname in ((0x41, "check1"), (0x42, "check2")):
        with opened(s, volid) as disk:
            disk.fill(byte)
        with s.preparing():
            s.ask("volume_snapshot", volid, snapname)
    with opened(s, volid) as disk:
        disk.fill(0x43)
    return volid


def point_in_time(s: Subject) -> None:
    """C-084: of an active volume, soon; later writes don't show in it."""
    s.need("volume_snapshot")
    volid = snapshot_volume(s)
    with opened(s, volid) as disk:
        disk.fill(0x41)
        answer = s.attempt("volume_snapshot", volid, "check1")
        if answer.error is not None:
            s.fail("a running guest's volume must be possible to snapshot")
        if answer.call.seconds > SNAPSHOT_SECONDS:
            s.fail(f"the snapshot took {answer.call.seconds:.0f} s, and the guest waited")
        disk.fill(0x42)
        if not disk.holds(0x42):
            s.fail("the volume can't be written to after a snapshot")
    if s.has("volume_snapshot_rollback"):
        s.ask("volume_snapshot_rollback", volid, "check1")
        with opened(s, volid) as disk:
            if not disk.holds(0x41):
                s.fail("the snapshot holds something else than the volume held then")


def deleting(s: Subject) -> None:
    """C-085: once, twice, and what never was."""
    s.need("volume_snapshot_delete")
    volid = _with_two(s)
    s.ask("volume_snapshot_delete", volid, "check1")
    for name in ("check1", "never"):
        s.attempt("volume_snapshot_delete", volid, name)
    info = _names(s, volid)
    if info is not None and info != ["check2"]:
        s.fail(f"'check2' must be all that's left, not {info}")
    with opened(s, volid) as disk:
        if not disk.holds(0x43):
            s.fail("deleting a snapshot changed the volume")


def _possible(s: Subject, volid: str, snapname: str, *, blockers: bool = True) -> Answer:
    given = "[]" if blockers else "undef"
    text = f"volume_rollback_is_possible($cfg, '{volid}', '{snapname}', {given})"
    return s.run(text, POSSIBLE, volid, snapname, int(blockers))


def rollback_is_possible(s: Subject) -> None:
    """C-086: says what is in the way, before it's gone."""
    s.need("volume_rollback_is_possible")
    volid = _with_two(s)
    for with_blockers in (True, False):
        newest = _possible(s, volid, "check2", blockers=with_blockers).value
        if not newest["possible"]:
            s.fail("nothing is in the way of the newest snapshot")
    if _possible(s, volid, "never").value["possible"]:
        s.remark("says yes to rolling back to a snapshot that isn't there")
    older = _possible(s, volid, "check1").value
    if not older["possible"]:
        if older["blockers"] != ["check2"]:
            s.fail("$blockers must name the snapshot in the way, check2")
        return
    s.ask("volume_snapshot_rollback", volid, "check1")
    left = _names(s, volid)
    if left is not None and "check2" not in left:
        s.fail("'check2' went away by a rollback that volume_rollback_is_possible had allowed")


def rollback(s: Subject) -> None:
    """C-087: the data of then; older snapshots stay."""
    s.need("volume_snapshot_rollback")
    volid = _with_two(s)
    s.ask("volume_snapshot_rollback", volid, "check2")
    with opened(s, volid) as disk:
        if not disk.holds(0x42):
            s.fail("after the rollback the volume doesn't hold what it held at 'check2'")
    left = _names(s, volid)
    if left is not None and "check1" not in left:
        s.fail("the older snapshot 'check1' went away by the rollback")
    if _possible(s, volid, "check1").value["possible"]:
        s.ask("volume_snapshot_rollback", volid, "check1")
        with opened(s, volid) as disk:
            if not disk.holds(0x41):
                s.fail("after the rollback the volume doesn't hold what it held at 'check1'")


def _names(s: Subject, volid: str) -> list[str] | None:
    """The snapshots that are listed, if they are."""
    if not s.has("volume_snapshot_info"):
        return None
    found = s.ask("volume_snapshot_info", volid)
    return sorted(name for name in found if name != "current")


def info(s: Subject) -> None:
    """C-088: nothing without snapshots; id and time of each."""
    s.need("volume_snapshot", "volume_snapshot_info")
    volid = snapshot_volume(s)
    found = s.ask("volume_snapshot_info", volid)
    if [name for name in found if name != "current"]:
        s.fail("there are no snapshots yet")
    if found and not s.values.get("snapshot-as-volume-chain"):
        s.fail("without snapshots the answer is {}")
    for snapname in ("check1", "check2"):
        s.ask("volume_snapshot", volid, snapname)
    found = s.ask("volume_snapshot_info", volid)
    entries = {name: entry for name, entry in found.items() if name != "current"}
    if sorted(entries) != ["check1", "check2"]:
        s.fail("the snapshots are check1 and check2")
    if any("file" in entry for entry in entries.values()):
        return  # a chain: files say what ids say elsewhere
    ids = [entry.get("id") for entry in entries.values()]
    if not any(ids):
        s.remark("snapshots have no id, so the storage can't be replicated")
    elif None in ids or len(set(ids)) != len(ids):
        s.fail(f"each snapshot needs an id of its own, not {ids}")
    for name, entry in entries.items():
        stamp = entry.get("timestamp")
        if not isinstance(stamp, int) or abs(stamp - time.time()) > 86400:
            s.fail(f"the timestamp of '{name}' must be seconds since 1970, not {stamp!r}")
    if entries["check1"]["timestamp"] > entries["check2"]["timestamp"]:
        s.fail("'check1' is older than 'check2', and its timestamp is later")
    if s.ask("volume_snapshot_info", volid) != found:
        s.fail("ids or times change from one question to the next")


def fsfreeze(s: Subject) -> None:
    """C-089: a yes or no of the type."""
    if s.ask("volume_snapshot_needs_fsfreeze", s.volume()) not in (None, 0, 1, "0", "1", ""):
        s.fail("the answer must be 0 or 1")


def any_name(s: Subject) -> None:
    """C-090: core's own names are odd."""
    s.need("volume_snapshot")
    volid = snapshot_volume(s)
    for name in NAMES:
        try:
            s.ask("volume_snapshot", volid, name)
        except Failed:
            s.fail(f"'{name}' is a name that core uses")
        found = _names(s, volid)
        if found is not None and found != [name]:
            s.fail(f"'{name}' was taken, {found} is listed")
        s.ask("volume_snapshot_delete", volid, name)


CHECKS: Final = {
    "C-084": point_in_time,
    "C-085": deleting,
    "C-086": rollback_is_possible,
    "C-087": rollback,
    "C-088": info,
    "C-089": fsfreeze,
    "C-090": any_name,
}
