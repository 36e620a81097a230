# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of raw volumes, for backends that have them."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import ConfigT
from ..errors import RollbackBlocked, StorageError
from ..model import SnapshotInfo
from ..storage import Storage
from .backend import can
from .volumes import Volumes


class Snapshots(Volumes[ConfigT]):
    """PVE's snapshot calls on the backend's verbs."""

    newest_only = False
    """Only the newest snapshot can be rolled back to."""

    def volume_snapshot(self, storage: Storage[ConfigT], volname: str, snapname: str) -> None:
        """Take a snapshot; the guest may be running (T-50)."""
        self._must("snapshot")
        name = self.parse_volname(volname).name
        if snapname in self.snapshots(storage, name):
            raise StorageError(f"snapshot '{snapname}' of '{volname}' exists already")
        self.snapshot(storage, name, snapname)

    def volume_snapshot_delete(
        self, storage: Storage[ConfigT], volname: str, snapname: str, running: bool = False
    ) -> None:
        """Delete a snapshot; one that doesn't exist is only worth a line (T-49)."""
        self._must("snapshot")
        name = self.parse_volname(volname).name
        if snapname not in self.snapshots(storage, name):
            storage.log(f"snapshot '{snapname}' of '{volname}' does not exist")
            return
        if self.attached(storage, name, snapname) is not None:
            self.detach(storage, name, snapname)
        self.snapshot_delete(storage, name, snapname)

    def volume_rollback_is_possible(
        self, storage: Storage[ConfigT], volname: str, snapname: str
    ) -> None:
        """Dies with the newer snapshots in the way, if the backend minds them."""
        self._must("snapshot")
        taken = list(self.snapshots(storage, self.parse_volname(volname).name))
        if snapname not in taken:
            raise StorageError(
                f"can't rollback, snapshot '{snapname}' does not exist on '{volname}'"
            )
        newer = taken[taken.index(snapname) + 1 :]
        if newer and self.newest_only:
            raise RollbackBlocked(
                f"can't rollback, '{snapname}' is not most recent snapshot on '{volname}'", newer
            )

    def volume_snapshot_rollback(
        self, storage: Storage[ConfigT], volname: str, snapname: str
    ) -> None:
        """Reset to a snapshot; the guest is stopped, the volume may still be attached."""
        self.volume_rollback_is_possible(storage, volname, snapname)
        name = self.parse_volname(volname).name
        self._release(storage, name)
        self.snapshot_rollback(storage, name, snapname)

    def volume_snapshot_info(
        self, storage: Storage[ConfigT], volname: str
    ) -> Mapping[str, SnapshotInfo]:
        """Snapshot name → id and time; empty without snapshots (C-088)."""
        return (
            self.snapshots(storage, self.parse_volname(volname).name)
            if can(self, "snapshot")
            else {}
        )
