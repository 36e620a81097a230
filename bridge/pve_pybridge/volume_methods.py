# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The methods about volumes that a plugin may override: the larger half of ``StoragePlugin``.

Nothing here does anything: signatures and docstrings are the contract with authors, who inherit
them through ``StoragePlugin``, and type checkers hold overrides against them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from .config import ConfigT
from .errors import NotSupported
from .model import Bytes, Cleanup, Hints, PruneEntry, Seconds, SnapshotInfo, Volume, VolumeSize
from .storage import Storage

T = TypeVar("T")
Answer: TypeAlias = T | Awaitable[T]
"""A method may be ``def`` or ``async def``."""


def absent() -> NoReturn:
    """The body of a method that a plugin may bring; never reached through PVE."""
    raise NotSupported("not implemented")


class VolumeMethods(Generic[ConfigT]):
    """Volumes, snapshots, activation, attributes, backups, transfer."""

    # --- volumes -------------------------------------------------------------------------------

    def alloc_image(
        self, storage: Storage[ConfigT], *, vmid: int, format: str, name: str | None, size: Bytes
    ) -> Answer[str]:
        """Create a volume of at least *size* bytes (maybe no multiple of 1024: T-05).

        *name* None: choose ``vm-<vmid>-disk-<n>``.  Returns the volume name.  PVE holds the lock.
        StorageError when the name is taken, is another guest's, or the format isn't possible.
        """
        absent()

    def clone_image(
        self, storage: Storage[ConfigT], *, volname: str, vmid: int, snapname: str | None
    ) -> Answer[str]:
        """Linked clone of a base image (or snapshot) for guest *vmid*; returns its volume name.

        A name such as ``base-100-disk-0/vm-101-disk-0`` says that it depends on its base (T-22).
        """
        absent()

    def create_base(self, storage: Storage[ConfigT], *, volname: str) -> Answer[str]:
        """Turn a volume into a base image; returns its new name, such as ``base-100-disk-0``."""
        absent()

    def free_image(
        self, storage: Storage[ConfigT], *, volname: str, is_base: bool, format: str | None
    ) -> Answer[Cleanup | None]:
        """Delete a volume; a missing one is no error.  Return Cleanup for what takes long."""
        absent()

    def free_image_cleanup(
        self, storage: Storage[ConfigT], *, data: Mapping[str, object]
    ) -> Answer[None]:
        """The long part of free_image, in a task of its own, outside the storage lock."""
        absent()

    def list_images(
        self, storage: Storage[ConfigT], *, vmid: int | None, vollist: Sequence[str] | None
    ) -> Answer[Sequence[Volume]]:
        """Disk images: those of *vmid*, or exactly the volume IDs of *vollist*, or all.

        StorageError when it can't be told: an empty list says that there are none.
        """
        absent()

    def list_volumes(
        self, storage: Storage[ConfigT], *, vmid: int | None, content_types: Sequence[str]
    ) -> Answer[Sequence[Volume]]:
        """Everything of the given content types, each entry with ``content`` set."""
        absent()

    def volume_size_info(
        self, storage: Storage[ConfigT], *, volname: str, timeout: Seconds | None
    ) -> Answer[VolumeSize]:
        """Size of a volume in bytes; StorageError when it doesn't exist.  *timeout* in seconds."""
        absent()

    def volume_resize(
        self,
        storage: Storage[ConfigT],
        *,
        volname: str,
        size: Bytes,
        running: bool,
        snapname: str | None,
    ) -> Answer[None]:
        """Grow to *size* bytes.  *running*: QEMU is told afterwards (T-06).  Not locked by PVE.

        *snapname* since APIVER 15.  StorageError rather than shrink.
        """
        absent()

    def rename_volume(
        self,
        storage: Storage[ConfigT],
        *,
        source_volname: str,
        target_vmid: int,
        target_volname: str | None,
    ) -> Answer[str]:
        """Give a volume to another guest; returns the new volume name (the host adds the ID).

        *target_volname* None: choose one.  StorageError when it is taken.
        """
        absent()

    def volume_has_feature(
        self,
        storage: Storage[ConfigT],
        *,
        feature: str,
        volname: str,
        snapname: str | None,
        running: bool,
        opts: Mapping[str, object],
    ) -> Answer[bool]:
        """Override only if ``rules`` can't say it; features: snapshot clone copy template …"""
        absent()

    def get_import_metadata(
        self, storage: Storage[ConfigT], *, volname: str
    ) -> Answer[Mapping[str, object]]:
        """What a guest made from this import volume would be: create-args, disks, net, warnings."""
        absent()

    # --- snapshots -----------------------------------------------------------------------------

    def volume_snapshot(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str
    ) -> Answer[None]:
        """Take a snapshot; the guest may run with its file system frozen: seconds, not minutes."""
        absent()

    def volume_snapshot_delete(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str, running: bool
    ) -> Answer[None]:
        """Delete a snapshot; it may not exist (T-49)."""
        absent()

    def volume_snapshot_rollback(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str
    ) -> Answer[None]:
        """Reset the volume to a snapshot; the guest is stopped."""
        absent()

    def volume_rollback_is_possible(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str
    ) -> Answer[None]:
        """Return if rollback is possible, else raise RollbackBlocked with what is in the way."""
        absent()

    def volume_snapshot_info(
        self, storage: Storage[ConfigT], *, volname: str
    ) -> Answer[Mapping[str, SnapshotInfo]]:
        """Snapshot name → details; empty when there are none."""
        absent()

    def rename_snapshot(
        self, storage: Storage[ConfigT], *, volname: str, source_snapname: str, target_snapname: str
    ) -> Answer[None]:
        """Rename a snapshot of a volume chain; ``current`` is the live image.  APIVER 12."""
        absent()

    def volume_qemu_snapshot_method(
        self, storage: Storage[ConfigT], *, volname: str
    ) -> Answer[str]:
        """``qemu`` | ``storage`` | ``mixed``, where ``rules`` can't say it.  APIVER 12."""
        absent()

    # --- activation ----------------------------------------------------------------------------

    def activate_volume(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str | None, hints: Hints
    ) -> Answer[None]:
        """Make the volume usable on this node: idempotent, maybe active elsewhere, too (T-15).

        A hint that can't be applied is a warning, never a failure.  Hints since APIVER 13.
        """
        absent()

    def deactivate_volume(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str | None
    ) -> Answer[None]:
        """Undo activate_volume and map_volume here; fine for inactive or missing volumes."""
        absent()

    def map_volume(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str | None, hints: Hints
    ) -> Answer[str | None]:
        """Path for containers and TPM state; without it: ``path``.  Hints since APIVER 13."""
        absent()

    def unmap_volume(
        self, storage: Storage[ConfigT], *, volname: str, snapname: str | None
    ) -> Answer[None]:
        """Undo map_volume; seldom called, deactivate_volume must do it as well (T-14)."""
        absent()

    def qemu_blockdev_options(
        self,
        storage: Storage[ConfigT],
        *,
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> Answer[Mapping[str, object]]:
        """QEMU's protocol layer for an active volume: ``driver`` and its options.  APIVER 12.

        *options*: ``hints`` (a mapping, e.g. ``efi-disk``) and maybe ``snapshot-name``.
        """
        absent()

    # --- attributes and backups ----------------------------------------------------------------

    def get_volume_attribute(
        self, storage: Storage[ConfigT], *, volname: str, attribute: str
    ) -> Answer[str | int | bool | None]:
        """``notes`` or ``protected``; None when the volume can't have it."""
        absent()

    def update_volume_attribute(
        self, storage: Storage[ConfigT], *, volname: str, attribute: str, value: str | None
    ) -> Answer[None]:
        """Set an attribute; StorageError when the volume can't have it."""
        absent()

    def prune_backups(
        self,
        storage: Storage[ConfigT],
        *,
        keep: Mapping[str, int],
        vmid: int | None,
        type: str | None,
        dryrun: bool,
    ) -> Answer[Sequence[PruneEntry]]:
        """Remove backups by the retention options *keep*; ``storage.log`` feeds the job's log."""
        absent()

    # --- transfer ------------------------------------------------------------------------------

    def volume_export_formats(
        self,
        storage: Storage[ConfigT],
        *,
        volname: str,
        snapshot: str | None,
        base_snapshot: str | None,
        with_snapshots: bool | Sequence[str],
    ) -> Answer[Sequence[str]]:
        """Stream formats, best first; override only if ``rules`` can't say it."""
        absent()

    def volume_import_formats(
        self,
        storage: Storage[ConfigT],
        *,
        volname: str,
        snapshot: str | None,
        base_snapshot: str | None,
        with_snapshots: bool | Sequence[str],
    ) -> Answer[Sequence[str]]:
        """As volume_export_formats, for a volume that is yet to be made."""
        absent()

    def volume_export(
        self,
        storage: Storage[ConfigT],
        *,
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None,
        base_snapshot: str | None,
        with_snapshots: bool | Sequence[str],
    ) -> Answer[None]:
        """Write the volume to descriptor *fh* (pipe, socket, file); ``+size``: 8 bytes first."""
        absent()

    def volume_import(
        self,
        storage: Storage[ConfigT],
        *,
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None,
        base_snapshot: str | None,
        with_snapshots: bool | Sequence[str],
        allow_rename: bool,
    ) -> Answer[str | None]:
        """Make a volume from descriptor *fh*; returns its name (None: as asked).  Not locked."""
        absent()
