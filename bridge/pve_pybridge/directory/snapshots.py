# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots inside a qcow2 file, the default of directory storages.

Every public snapshot method starts here and hands over to ``chain`` when the storage keeps
snapshots as a chain of volumes instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RollbackBlocked, StorageError
from ..model import SnapshotInfo, VolumeName
from ..storage import Storage
from . import chain, files, qemu_img
from .backups import Backups
from .config import DirectoryConfigT


class Snapshots(Backups[DirectoryConfigT]):
    """The snapshot methods."""

    def volume_snapshot(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str
    ) -> None:
        """Take a snapshot: in the file, or by putting a new layer on top of it."""
        image = self._qcow2(volname, "can't snapshot this image format")
        path = self.path(storage, volname)
        if not storage.config.snapshot_as_volume_chain:
            storage.run([qemu_img.QEMU_IMG, "snapshot", "-c", snapname, path])
            return
        snapshot_path = self.path(storage, volname, snapname)
        self.rename_snapshot(storage, volname, "current", snapname)
        # the new layer holds no data yet: moving the old file back undoes everything
        storage.on_failure(files.rename, snapshot_path, path)
        try:
            chain.create_layer(storage, path, image, snapname)
        except StorageError as err:
            storage.warn(str(err))
            raise StorageError(
                f"can't allocate new volume {volname} with {snapname} backing image"
            ) from None

    def volume_snapshot_delete(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str, running: bool = False
    ) -> None:
        """Delete a snapshot; one that doesn't exist is only worth a warning (T-49)."""
        self._qcow2(volname, "can't delete snapshot for this image format")
        if storage.config.snapshot_as_volume_chain:
            path = self.path(storage, volname, snapname)
            known = {} if running else self.volume_snapshot_info(storage, volname)
            # of a running guest QEMU has moved the data already, only the file is left
            chain.delete(storage, volname, snapname, path, known, only_file=running)
        elif not running:
            self._delete_internal(storage, volname, snapname)

    def _delete_internal(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str
    ) -> None:
        path = self.path(storage, volname)
        try:
            storage.run([qemu_img.QEMU_IMG, "snapshot", "-d", snapname, path])
        except StorageError:
            if snapname in self.volume_snapshot_info(storage, volname):
                raise
            storage.warn(f"snapshot '{snapname}' of volume '{volname}' does not exist")

    def volume_snapshot_rollback(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str
    ) -> None:
        """Reset the volume: qcow2 does it itself, a chain gets a new, empty top layer."""
        image = self._qcow2(volname, "can't rollback snapshot this image format")
        path = self.path(storage, volname)
        if storage.config.snapshot_as_volume_chain:
            chain.replace_top(storage, path, image, volname, snapname)
        else:
            storage.run([qemu_img.QEMU_IMG, "snapshot", "-a", snapname, path])

    def volume_rollback_is_possible(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str
    ) -> None:
        """A chain can only go back to its most recent snapshot; a qcow2 file to any."""
        if not storage.config.snapshot_as_volume_chain:
            return
        known = self.volume_snapshot_info(storage, volname)
        oldest_first = chain.oldest_first(known)
        if snapname not in oldest_first:
            raise RollbackBlocked(
                f"can't rollback, snapshot '{snapname}' does not exist on '{volname}'"
            )
        newer = oldest_first[oldest_first.index(snapname) + 1 :]
        if newer:
            raise RollbackBlocked(
                f"can't rollback, '{snapname}' is not most recent snapshot on '{volname}'", newer
            )

    def volume_snapshot_info(
        self, storage: Storage[DirectoryConfigT], volname: str
    ) -> Mapping[str, SnapshotInfo]:
        """Snapshots of a volume; in a chain with files, order and relations."""
        image = self.parse_volname(volname)
        path = self.path(storage, volname)
        if storage.config.snapshot_as_volume_chain:
            layers = qemu_img.info(storage, path, image.format, timeout=10, chain=True)
            return chain.describe(image, layers)
        answer = qemu_img.info(storage, path, image.format, timeout=10)
        return _describe_internal(answer)

    def rename_snapshot(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        source_snapname: str,
        target_snapname: str,
    ) -> None:
        """Rename the file of a chain's snapshot; ``current`` is the live image."""
        source = self.path(storage, volname, source_snapname)
        target = self.path(storage, volname, target_snapname)
        chain.rename_file(storage, source, target, target_snapname)

    def _qcow2(self, volname: str, otherwise: str) -> VolumeName:
        image = self.parse_volname(volname)
        if image.format != "qcow2":
            raise StorageError(otherwise)
        return image


def _describe_internal(answer: Mapping[str, Any]) -> dict[str, SnapshotInfo]:
    """No ``id``: QEMU's number is neither unique over time nor kept by a copy."""
    return {
        str(item["name"]): SnapshotInfo(timestamp=int(item["date-sec"]))
        for item in answer.get("snapshots", ())
    }
