# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""F. Activation and hints."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..disk import Qemu, blockdev, is_device, is_there, opened, reach
from ..outcome import NotApplicable
from ..subject import Subject
from .names import other_node
from .snapshots import snapshot_volume

FULL: Final = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 1}
GENTLE: Final = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 0}
NODE_B: Final = ("unshare", "--uts", "sh", "-c", 'hostname check-b; exec "$@"', "sh")
"""Root's server of another node has another host name; what else differs, a machine can't show."""


def _needs_activation(s: Subject, volid: str) -> bool:
    """Whether there is nothing to open before activation."""
    return not is_there(s, volid)


def twice_up_once_down(s: Subject) -> None:
    """C-072: activation is a state, not a counter."""
    volid = s.volume()
    needed = _needs_activation(s, volid)
    s.ask("activate_volumes", [volid])
    first = _identity(s, volid)
    s.ask("activate_volumes", [volid])
    if _identity(s, volid) != first:
        s.fail("the second activation took the device away and made a new one")
    s.ask("deactivate_volumes", [volid])
    if needed and is_there(s, volid):
        s.fail("after two activations and one deactivation the volume is still active")


def _identity(s: Subject, volid: str) -> tuple[object, ...]:
    """What changes when a device is taken down and up again; empty where nothing can show it."""
    path = str(s.ask("path", volid))
    if not path.startswith("/") or not os.path.exists(path):
        return ()
    link, target = os.lstat(path), os.stat(path)
    sequence = Path(f"/sys/block/{Path(path).resolve().name}/diskseq")
    number = sequence.read_text() if sequence.exists() else ""
    made = link.st_ctime_ns if stat.S_ISLNK(link.st_mode) else 0  # inodes are used again
    return link.st_ino, made, os.path.realpath(path), target.st_rdev, number


def active_is_usable(s: Subject) -> None:
    """C-073: there, readable and writable, with data that stays."""
    volid = s.volume()
    with opened(s, volid) as disk:
        disk.fill(0x5A, 1 << 20)
        if not disk.holds(0x5A, 1 << 20):
            s.fail("what was written can't be read back")
    with opened(s, volid) as disk:
        if not disk.holds(0x5A, 1 << 20):
            s.fail("what was written is gone after deactivation and activation")


def inactive_may_be_deactivated(s: Subject) -> None:
    """C-074: and missing ones."""
    volid = s.volume()
    for _ in range(2):
        answer = s.attempt("deactivate_volumes", [volid])
        if answer.error is not None:
            s.fail(f"deactivating an inactive volume must succeed: {answer.stderr.strip()}")
    missing = volid.replace("disk-0", "disk-77")
    answer = s.attempt("deactivate_volumes", [missing])
    if answer.error is not None:
        s.fail(f"deactivating a volume that isn't there must succeed: {answer.stderr.strip()}")


@contextmanager
def _held(s: Subject, volid: str) -> Iterator[None]:
    """Somebody has the active volume open, as a guest would."""
    path = str(s.ask("path", volid))
    if is_device(path):
        fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            yield
            os.pwrite(fd, b"x" * 512, 0)
            os.fsync(fd)
        except OSError as err:
            s.fail(f"the open device can't be used any more: {err.strerror}")
        finally:
            os.close(fd)
        return
    if path.startswith("/"):
        raise NotApplicable("the volume is a file, nobody can tell who uses it")
    image = Qemu({"driver": "raw", "file": blockdev(s, volid, path, None)}).image
    user = subprocess.Popen(
        ["qemu-io", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert user.stdin is not None
    assert user.stdout is not None
    try:
        user.stdin.write(b"read 0 512\n")
        user.stdin.flush()
        user.stdout.readline()
        yield
        said, _ = user.communicate(b"write -P 7 0 512\nquit\n", timeout=20)
        if b"512/512" not in said:
            s.fail(f"the guest's QEMU can't write any more: {said!r}")
    finally:
        user.kill()
        user.communicate()


def busy_volumes_stay(s: Subject) -> None:
    """C-075: deactivation dies, the user notices nothing."""
    volid = s.volume()
    s.ask("activate_volumes", [volid])
    if not str(s.ask("path", volid)).startswith("/") and not _qemu_opens(s, volid):
        raise NotApplicable("nothing here can open the volume")
    with _held(s, volid):
        s.refused("deactivate_volumes", [volid], why="the volume is in use")
    s.ask("deactivate_volumes", [volid])


def _qemu_opens(s: Subject, volid: str) -> bool:
    return is_there(s, volid)


def on_two_nodes(s: Subject) -> None:
    """C-076: live migration has a volume active on both nodes for a while."""
    if not s.is_shared:
        raise NotApplicable("the storage is not shared (--config shared=1, if it can be)")
    volid = s.volume()
    needed = _needs_activation(s, volid)
    s.ask("activate_volumes", [volid])
    root = os.geteuid() == 0
    node = other_node(s, NODE_B if root else ())
    try:
        there = node.session()
        answer = s.attempt("activate_volumes", [volid], session=there)
        if answer.error is not None:
            s.fail("activation on a second node must succeed while the first has it active")
        s.ask("deactivate_volumes", [volid])
        if not needed:
            reach(s, volid).holds(0)
        answer = s.attempt("deactivate_volumes", [volid], session=there)
        if answer.error is not None:
            s.fail("deactivation on the second node fails after that on the first")
    finally:
        node.close()


def any_hints(s: Subject) -> None:
    """C-077: none, empty, all; and no detaching that wasn't allowed."""
    if s.settings.apiver < 13:
        raise NotApplicable("hints came with APIVER 13")
    volid = s.volume()
    for hints in (None, {}, FULL, GENTLE):
        s.ask("activate_volumes", [volid], None, hints)
        s.ask("deactivate_volumes", [volid])
    s.ask("activate_volumes", [volid])
    first = _identity(s, volid)
    for hints in (GENTLE, {"guest-is-windows": 1}):
        s.ask("activate_volumes", [volid], None, hints)
        if _identity(s, volid) != first:
            s.fail("the device was taken down without plugin-may-deactivate-volume")
    s.ask("activate_volumes", [volid], None, FULL)
    reach(s, volid)


def hints_never_fail(s: Subject) -> None:
    """C-078: on a volume that is active, or even in use, the rest is a warning."""
    if s.settings.apiver < 13:
        raise NotApplicable("hints came with APIVER 13")
    volid = s.volume()
    volname = volid.partition(":")[2]
    s.ask("activate_volumes", [volid])
    s.ask("activate_volumes", [volid], None, GENTLE)
    try:
        with _held(s, volid):
            s.ask("activate_volumes", [volid], None, FULL)
    except NotApplicable:
        s.ask("activate_volumes", [volid], None, FULL)
    if s.has("map_volume"):
        s.method("map_volume", volname=volname, hints=GENTLE)


def mapping(s: Subject) -> None:
    """C-079: a path to open, and two ways to let go of it."""
    volid = s.volume()
    if s.parse(volid)[6] == "subvol":
        raise NotApplicable("volumes of this storage are directories")
    needed = _needs_activation(s, volid)
    for undo, argument in (("unmap_volume", volid), ("deactivate_volumes", [volid])):
        for hints in ((), (FULL,)) if s.settings.apiver >= 13 else ((),):
            began = time.monotonic()
            path = s.ask("map_volume", volid, None, *hints)
            if not path:
                s.fail("map_volume must give a path: containers and TPM state open it")
            if not str(path).startswith("/") and not s.has("map_volume"):
                raise NotApplicable(f"'{path}' is no file, and the plugin has no map_volume")
            if not os.path.exists(str(path)):
                s.fail(f"map_volume gave '{path}', and nothing is there")
            s.ask(undo, argument)
            if needed and os.path.lexists(str(path)):
                s.fail(f"after {undo} '{path}' is still there ({time.monotonic() - began:.1f} s)")


def snapshots_are_views(s: Subject) -> None:
    """C-080: of the past, never of the live volume."""
    s.need("volume_snapshot")
    volid = snapshot_volume(s)
    with opened(s, volid) as disk:
        disk.fill(0x41)
    with s.preparing():
        s.ask("volume_snapshot", volid, "check1")
    with opened(s, volid) as disk:
        disk.fill(0x42)
    answer = s.attempt("activate_volumes", [volid], "check1")
    if answer.error is not None:
        s.remark("snapshots can't be activated, so they can't be backed up or copied")
        return
    with opened(s, volid, "check1") as disk:
        if not disk.holds(0x41):
            s.fail("the snapshot doesn't show what the volume held when it was taken")
    with opened(s, volid) as disk:
        if not disk.holds(0x42):
            s.fail("looking at a snapshot changed the live volume")


CHECKS: Final = {
    "C-072": twice_up_once_down,
    "C-073": active_is_usable,
    "C-074": inactive_may_be_deactivated,
    "C-075": busy_volumes_stay,
    "C-076": on_two_nodes,
    "C-077": any_hints,
    "C-078": hints_never_fail,
    "C-079": mapping,
    "C-080": snapshots_are_views,
}
