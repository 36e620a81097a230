# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about snapshots."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from pve_pybridge import RollbackBlocked, SnapshotInfo, StorageError

from . import caught_by
from .vault import Store, Vault


@caught_by("C-084")
class SnapshotSharesTheData(Vault):
    """A snapshot is another name for the volume: later writes show in it."""

    def copy(self, source: Path, target: Path) -> None:
        if "@" in target.name:
            os.link(source, target)
        else:
            super().copy(source, target)


@caught_by("C-084")
class OnlyWhileInactive(Vault):
    """Refuses snapshots of volumes that are active, which is when they are wanted."""

    def snapshot(self, storage: Store, name: str, snapname: str) -> None:
        if self.attached(storage, name, None):
            raise StorageError(f"volume '{name}' is in use")
        super().snapshot(storage, name, snapname)


@caught_by("C-085")
class DeletesAllSnapshots(Vault):
    """Deletes all snapshots of a volume instead of one."""

    def snapshot_delete(self, storage: Store, name: str, snapname: str) -> None:
        for each in self.snapshots(storage, name):
            super().snapshot_delete(storage, name, each)


@caught_by("C-085")
class DeletingRollsBack(Vault):
    """Deleting a snapshot resets the volume to it."""

    def snapshot_delete(self, storage: Store, name: str, snapname: str) -> None:
        self.snapshot_rollback(storage, name, snapname)
        super().snapshot_delete(storage, name, snapname)


@caught_by("C-086")
class RollbackDropsNewerOnes(Vault):
    """Rolls back past newer snapshots, which are gone without a word."""

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        super().snapshot_rollback(storage, name, snapname)
        order = self.order(storage, name)
        for newer in order[order.index(snapname) + 1 :]:
            self.snapshot_delete(storage, name, newer)


@caught_by("C-086")
class BlockersWithoutNames(Vault):
    """Says that something is in the way of a rollback, and not what."""

    def volume_rollback_is_possible(self, storage: Store, volname: str, snapname: str) -> None:
        order = self.order(storage, self.parse_volname(volname).name)
        if order[-1:] != [snapname]:
            raise RollbackBlocked("newer snapshots are in the way")


@caught_by("C-087")
class RollbackDoesNothing(Vault):
    """Says that it rolled back, and didn't."""

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        storage.log("rolled back")


@caught_by("C-087")
class RollbackDropsOlderOnes(Vault):
    """A rollback takes all other snapshots along."""

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        super().snapshot_rollback(storage, name, snapname)
        for other in self.order(storage, name):
            if other != snapname:
                self.snapshot_delete(storage, name, other)


@caught_by("C-087")
class RollsBackToTheOldest(Vault):
    """Rolls back to the oldest snapshot, whichever was asked for."""

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        super().snapshot_rollback(storage, name, self.order(storage, name)[0])


class Infos(Vault):
    """Something to derive from: one place to change what is said of snapshots."""

    def snapshots(self, storage: Store, name: str) -> dict[str, SnapshotInfo]:
        found = super().snapshots(storage, name)
        return {snap: self.changed(info) for snap, info in found.items()}

    def changed(self, info: SnapshotInfo) -> SnapshotInfo:
        return info


@caught_by("C-088")
class OneIdForAll(Infos):
    """Gives all snapshots the same id."""

    def changed(self, info: SnapshotInfo) -> SnapshotInfo:
        return dataclasses.replace(info, id="1")


@caught_by("C-088")
class IdsChange(Infos):
    """Gives a snapshot another id with each question."""

    def changed(self, info: SnapshotInfo) -> SnapshotInfo:
        return dataclasses.replace(info, id=str(time.monotonic_ns()))


@caught_by("C-088")
class TimesInMilliseconds(Infos):
    """Gives times in milliseconds, as its REST interface has them."""

    def changed(self, info: SnapshotInfo) -> SnapshotInfo:
        return dataclasses.replace(info, timestamp=(info.timestamp or 0) * 1000)


@caught_by("C-088")
class TimesBackwards(Infos):
    """Gives the time until now instead of the time since 1970: the oldest seems the newest."""

    def snapshots(self, storage: Store, name: str) -> dict[str, SnapshotInfo]:
        found = list(super().snapshots(storage, name).items())
        now = int(time.time())
        return {
            snap: dataclasses.replace(info, timestamp=now - 60 * number)
            for number, (snap, info) in enumerate(found)
        }


@caught_by("C-088")
class AlwaysASnapshot(Vault):
    """Lists the live volume as a snapshot called base."""

    def snapshots(self, storage: Store, name: str) -> dict[str, SnapshotInfo]:
        now = SnapshotInfo(id="0", timestamp=int(time.time()))
        return {"base": now, **super().snapshots(storage, name)}


@caught_by("C-090")
class ShortSnapshotNames(Vault):
    """Cuts snapshot names after 32 characters, as its backend does."""

    def snapshot(self, storage: Store, name: str, snapname: str) -> None:
        super().snapshot(storage, name, snapname[:32])


@caught_by("C-090")
class LettersOnly(Vault):
    """Refuses snapshot names with underscores, which core uses itself."""

    def snapshot(self, storage: Store, name: str, snapname: str) -> None:
        if "_" in snapname:
            raise StorageError(f"illegal snapshot name '{snapname}'")
        super().snapshot(storage, name, snapname)
