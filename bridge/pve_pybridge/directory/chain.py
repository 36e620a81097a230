# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots as a chain of volumes: every snapshot is a qcow2 file, the live image the top layer.

``snap-S1-vm-100-disk-0.qcow2`` ← ``snap-S2-vm-100-disk-0.qcow2`` ← ``vm-100-disk-0.qcow2``.
Backing files are named relative to the image, so that the whole directory can move.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StorageError
from ..model import SnapshotInfo, VolumeName
from ..storage import Storage
from . import files, qemu_img
from .config import DirectoryConfigT
from .layout import snapshot_file, snapshot_of

_INVALID = (
    "The state of {} is now invalid. Don't try to clone or rollback it. "
    "You can only try to delete it again later"
)


def create_layer(
    storage: Storage[DirectoryConfigT], path: str, image: VolumeName, snapname: str
) -> None:
    """Make *path* an empty layer on top of snapshot *snapname* of *image*."""
    backing = snapshot_file(image.name, snapname)
    preallocation = storage.config.preallocation_for(image.format)
    qemu_img.create_overlay(storage, path, backing, image.format, preallocation)


def replace_top(
    storage: Storage[DirectoryConfigT], path: str, image: VolumeName, volname: str, snapname: str
) -> None:
    """Give up the live image for a new layer on *snapname*; there is always one or the other."""
    new = f"{path}.rollback"
    storage.on_failure(files.discard, new)
    try:
        create_layer(storage, new, image, snapname)
    except StorageError as err:
        raise StorageError(f"can't allocate new volume {volname}: {err}") from None
    files.rename(new, path)


def rename_file(storage: Storage[Any], source: str, target: str, target_snapname: str) -> None:
    """Rename a layer's file, never over another one."""
    storage.log(f"rename {source} to {target}")
    if os.path.lexists(target):
        raise StorageError(f"target snapshot '{target_snapname}' already exists")
    files.rename(source, target)


def describe(image: VolumeName, layers: Sequence[Mapping[str, Any]]) -> dict[str, SnapshotInfo]:
    """*layers* of ``qemu-img info --backing-chain`` as snapshots, without a clone's base."""
    found: dict[str, SnapshotInfo] = {}
    child = None
    for order, layer in enumerate(layers):
        name = snapshot_of(image.name, layer["filename"])
        if name is None:
            break
        backing = layer.get("backing-filename")
        found[name] = SnapshotInfo(
            file=layer["filename"],
            volname=f"{image.vmid}/{snapshot_file(image.name, name)}",
            parent=snapshot_of(image.name, backing) if backing else None,
            child=child,
            order=order,
            virtual_size=int(layer["virtual-size"]),
        )
        child = name
    return found


def oldest_first(known: Mapping[str, SnapshotInfo]) -> list[str]:
    """Names of the snapshots, the live image left out."""
    names = [name for name in known if name != "current"]
    return sorted(names, key=lambda name: known[name].order or 0, reverse=True)


def delete(
    storage: Storage[Any],
    volname: str,
    snapname: str,
    path: str,
    known: Mapping[str, SnapshotInfo],
    *,
    only_file: bool,
) -> None:
    """Take one layer out of the chain and keep what the layers above see."""
    if not os.path.lexists(path):
        storage.warn(f"snapshot '{snapname}' of volume '{volname}' does not exist")
        return
    if only_file:
        files.unlink(path)
        return
    snapshot = known.get(snapname)
    child = known.get(snapshot.child) if snapshot and snapshot.child else None
    if snapshot is None or snapshot.child is None or child is None or child.file is None:
        raise StorageError(f"snapshot '{snapname}' is not part of the chain of volume '{volname}'")
    step = _Removal(volname, snapname, path, snapshot.child, child.file)
    if snapshot.parent is None:
        _commit(storage, step)
    else:
        _rebase(storage, step, snapshot.parent)


@dataclass(frozen=True, slots=True)
class _Removal:
    """Snapshot *snapname* in file *path* goes, its child stays."""

    volname: str
    snapname: str
    path: str
    child: str
    child_path: str

    def announce(self, storage: Storage[Any], how: str, command: Sequence[str]) -> None:
        storage.log(f"{self.volname}: deleting snapshot '{self.snapname}' by {how}")
        storage.log(f"running '{' '.join(command)}'")


def _commit(storage: Storage[Any], step: _Removal) -> None:
    """The first snapshot is usually the largest: pull its child down into it."""
    command = [qemu_img.QEMU_IMG, "commit", step.child_path]
    step.announce(storage, f"committing snapshot '{step.child}'", command)
    try:
        storage.run(command)
    except StorageError as err:
        storage.warn(_INVALID.format(step.snapname))
        raise StorageError(f"error committing {step.child} to {step.snapname}; {err}") from None
    storage.log(f"rename {step.path} to {step.child_path}")
    files.rename(step.path, step.child_path)


def _rebase(storage: Storage[Any], step: _Removal, parent: str) -> None:
    """Copy what the child needs of this layer into the child, then do without the layer."""
    backing = snapshot_file(os.path.basename(step.volname), parent)
    command = [qemu_img.QEMU_IMG, "rebase", "-b", backing, "-F", "qcow2", "-f", "qcow2"]
    command.append(step.child_path)
    step.announce(storage, f"rebasing '{step.child}' on top of '{parent}'", command)
    try:
        storage.run(command)
    except StorageError as err:
        _point_back(storage, step)
        raise StorageError(f"error rebase {step.child} from {parent}; {err}") from None
    except BaseException:
        _point_back(storage, step)
        raise
    try:
        files.unlink(step.path)
    except StorageError as err:
        raise StorageError(f"error delete old snapshot volume {step.path}: {err}") from None


def _point_back(storage: Storage[Any], step: _Removal) -> None:
    """The chain as it was: killed late, qemu-img has named the new backing file already, while
    part of what it copied was only in its memory.  The layer still has all of it.
    """
    from .. import process  # noqa: PLC0415  3 ms that storage.run has taken by now

    command = [qemu_img.QEMU_IMG, "rebase", "-u", "-b", os.path.basename(step.path)]
    command += ["-F", "qcow2", "-f", "qcow2", step.child_path]
    storage.log(f"{step.volname}: keeping snapshot '{step.snapname}'")
    process.run(command, checkpoint=lambda: None)
