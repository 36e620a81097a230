# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the author of a block storage writes: the backend's own verbs, by plain volume name.

A backend knows names, sizes and attachments; it knows nothing of PVE.  The layers above turn PVE's
calls into these verbs.  The first eight are required, the rest say by being there what the storage
can do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..config import ConfigT
from ..errors import StorageError
from ..model import ByteCount, Bytes, Hints, SnapshotInfo, Status, Timestamp
from ..names import BLOCK_NAMES, NamePattern
from ..plugin import StoragePlugin
from ..storage import Storage
from ..volume_methods import absent

Options = Mapping[str, object]
"""How a volume is attached: whatever the backend wants to tell apart (``{"rxbounce": True}``)."""


class VolumeExists(StorageError):
    """Raised by ``create``, ``clone`` and ``rename`` when the name is taken."""


@contextmanager
def name_taken(name: str) -> Iterator[None]:
    """FileExistsError, from a backend whose volumes are files, as VolumeExists."""
    try:
        yield
    except FileExistsError:
        raise VolumeExists(f"volume '{name}' exists already") from None


@dataclass(frozen=True, slots=True)
class BlockVolume:
    """A volume of the backend: plain name, size in bytes.

    *base* is the base image that a linked clone still depends on, if the backend can tell.
    """

    name: str
    """Plain: ``vm-100-disk-0``."""
    size: ByteCount
    """Bytes as a guest sees them."""
    base: str | None = None
    used: ByteCount | None = None
    """Bytes it takes in the backend."""
    ctime: Timestamp | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """How a volume is attached to this node now, as read from the system."""

    device: str
    """The device itself, as far as it is known; ``grow`` gets it."""
    options: Options = field(default_factory=dict)
    """The attach options it has."""


class Backend(StoragePlugin[ConfigT]):
    """The verbs.  *name* is a plain name like ``vm-100-disk-0``, without storage or base."""

    names: ClassVar[Sequence[NamePattern]] = BLOCK_NAMES
    allocation_unit: ClassVar[int] = 1024
    """Sizes are rounded up to a multiple of this many bytes."""
    reads_zero: ClassVar[bool] = False
    """A new volume reads as zeros, reused space included (``sparseinit``: a wrong yes corrupts)."""
    hint_options: ClassVar[Mapping[str, Options]] = {}
    """Hint → attach options it asks for, e.g. ``{"guest-is-windows": {"rxbounce": True}}``."""
    clones_snapshots: ClassVar[bool] = False
    """``clone`` takes a snapshot, too."""

    # --- required ------------------------------------------------------------------------------

    def volumes(self, storage: Storage[ConfigT]) -> Sequence[BlockVolume]:
        """All volumes of this storage; names that aren't ours are filtered by the caller.

        StorageError when it can't be told, never an empty list.  PVE: ``list_images``.
        """
        absent()

    def create(self, storage: Storage[ConfigT], name: str, size: Bytes) -> None:
        """Make a volume of *size* bytes; VolumeExists when the name is taken.

        *size* is a multiple of ``allocation_unit``.  PVE: ``alloc_image``, ``volume_import``.
        """
        absent()

    def delete(self, storage: Storage[ConfigT], name: str) -> None:
        """Remove a volume that is detached and has no snapshots.  PVE: ``free_image``."""
        absent()

    def grow(self, storage: Storage[ConfigT], name: str, size: Bytes, device: str | None) -> None:
        """Make it *size* bytes; so must be *device*, if attached, when this returns (T-06).

        *size* is a multiple of ``allocation_unit``, and more than now.  PVE: ``volume_resize``.
        """
        absent()

    def device(self, storage: Storage[ConfigT], name: str, snapname: str | None) -> str:
        """Path the volume has when it is attached; stable, the same on all nodes, no I/O.

        PVE: ``path``, ``map_volume``, ``qemu_blockdev_options``.
        """
        absent()

    def attached(
        self, storage: Storage[ConfigT], name: str, snapname: str | None
    ) -> Attachment | None:
        """How it is attached to this node, from the system itself; None when it isn't.

        None for a missing volume, too.
        """
        absent()

    def attach(
        self, storage: Storage[ConfigT], name: str, snapname: str | None, options: Options
    ) -> None:
        """Attach to this node and wait until the device is there (T-20); snapshots read-only.

        Only asked for what isn't attached.  StorageError when *options* can't be had: then it is
        asked once more without.  PVE: ``activate_volume``, ``map_volume``.
        """
        absent()

    def detach(self, storage: Storage[ConfigT], name: str, snapname: str | None) -> None:
        """Detach from this node only (T-15); StorageError when it is in use.

        Only asked for what is attached.  PVE: ``deactivate_volume``, ``unmap_volume``.
        """
        absent()

    def status(self, storage: Storage[ConfigT]) -> Status | None:
        """Capacity in bytes; None when inactive.  Every 10 s, within 3 s.  PVE: ``status``."""
        absent()

    # --- optional: what is overridden is what the storage can do -------------------------------

    def size(self, storage: Storage[ConfigT], name: str) -> ByteCount | None:
        """Bytes of one volume, None when it doesn't exist; override if asking for all is slow.

        PVE: ``volume_size_info``.
        """
        return next((v.size for v in self.volumes(storage) if v.name == name), None)

    def volume_names(self, storage: Storage[ConfigT]) -> Collection[str]:
        """All names, asked under the storage's lock; override if listing sizes as well is slow."""
        return [volume.name for volume in self.volumes(storage)]

    def rename(self, storage: Storage[ConfigT], name: str, new_name: str) -> None:
        """Enables templates and moving a disk to another guest; VolumeExists when taken.

        The volume is detached.  PVE: ``create_base``, ``rename_volume``.
        """
        absent()

    def clone(
        self, storage: Storage[ConfigT], name: str, snapname: str | None, new_name: str
    ) -> bool:
        """Enables linked clones.  True when the clone depends on its base, False if it is whole.

        VolumeExists when *new_name* is taken.  PVE: ``clone_image``.
        """
        absent()

    def snapshot(self, storage: Storage[ConfigT], name: str, snapname: str) -> None:
        """Enables snapshots, with the three below: an instantaneous, consistent one (T-50).

        The guest may be running; StorageError if that can't be.  PVE: ``volume_snapshot``.
        """
        absent()

    def snapshot_delete(self, storage: Storage[ConfigT], name: str, snapname: str) -> None:
        """Remove a snapshot that exists and is detached.  PVE: ``volume_snapshot_delete``."""
        absent()

    def snapshot_rollback(self, storage: Storage[ConfigT], name: str, snapname: str) -> None:
        """Reset a detached volume to a snapshot.  PVE: ``volume_snapshot_rollback``."""
        absent()

    def snapshots(self, storage: Storage[ConfigT], name: str) -> Mapping[str, SnapshotInfo]:
        """The snapshots of a volume, oldest first.  PVE: ``volume_snapshot_info``."""
        return {}

    def options_for(self, hints: Hints) -> dict[str, object]:
        """Attach options that the hints ask for; override what ``hint_options`` can't say."""
        wanted: dict[str, object] = {}
        for hint, options in self.hint_options.items():
            if hints.get(hint):
                wanted |= options
        return wanted


def can(plugin: type[Backend[Any]] | Backend[Any], verb: str) -> bool:
    """Whether the backend brings its own optional *verb*."""
    cls = plugin if isinstance(plugin, type) else type(plugin)
    return getattr(cls, verb) is not getattr(Backend, verb)
