# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The life of raw volumes: names, sizes, ownership, templates, clones, lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..config import ConfigT
from ..errors import NotSupported, StorageError
from ..model import Bytes, Cleanup, Seconds, Volume, VolumeName, VolumeSize
from ..storage import Storage
from .attachment import Attaching
from .backend import BlockVolume, VolumeExists, can

MAX_VOLUMES_PER_GUEST: Final = 1024


class Volumes(Attaching[ConfigT]):
    """alloc, free, list, size, resize, rename, template, clone."""

    def alloc_image(
        self, storage: Storage[ConfigT], vmid: int, format: str, name: str | None, size: Bytes
    ) -> str:
        """At least *size* bytes (T-05, T-11); any name core invents is welcome (T-08)."""
        self._check_format(format)
        if name:
            self._check_owner(name, vmid)
        rounded = -(-size // self.allocation_unit) * self.allocation_unit
        return self._take(
            storage, vmid, name, lambda chosen: self.create(storage, chosen, Bytes(rounded))
        )

    def free_image(
        self,
        storage: Storage[ConfigT],
        volname: str,
        is_base: bool = False,
        format: str | None = None,
    ) -> Cleanup | None:
        """Detach, remove snapshots, remove.  Refuses a base in use even where PVE can't tell."""
        parsed = self.parse_volname(volname)
        name = parsed.name
        if self.size(storage, name) is None:
            storage.log(f"volume '{volname}' does not exist")
            return None
        if parsed.is_base or self.clones_snapshots:  # others can't have clones
            clones = sorted(v.name for v in self.volumes(storage) if v.base == name)
        else:
            clones = []
        if clones:
            raise StorageError(f"base volume '{volname}' is still in use by {', '.join(clones)}")
        taken = list(self.snapshots(storage, name))
        for snapname in (None, *taken):
            if self.attached(storage, name, snapname) is not None:
                self.detach(storage, name, snapname)
        for snapname in reversed(taken):
            self.snapshot_delete(storage, name, snapname)
        self.delete(storage, name)
        return None

    def list_images(
        self,
        storage: Storage[ConfigT],
        vmid: int | None = None,
        vollist: Sequence[str] | None = None,
    ) -> list[Volume]:
        """Volumes whose names are PVE's; foreign ones never appear (C-050, T-40)."""
        found = []
        for volume in self.volumes(storage):
            parsed = self._parsed(volume)
            if parsed is None:
                continue
            found.append(
                Volume(
                    volname=f"{volume.base}/{volume.name}" if volume.base else volume.name,
                    format="raw",
                    size=volume.size,
                    vmid=parsed.vmid,
                    used=volume.used,
                    parent=volume.base,
                    ctime=volume.ctime,
                )
            )
        return self.select(storage, found, vmid, vollist)

    def volume_size_info(
        self, storage: Storage[ConfigT], volname: str, timeout: Seconds | None = None
    ) -> VolumeSize:
        """Size in bytes; StorageError when there is no such volume (T-10)."""
        return VolumeSize(self._size(storage, volname))

    def volume_resize(
        self,
        storage: Storage[ConfigT],
        volname: str,
        size: Bytes,
        running: bool = False,
        snapname: str | None = None,
    ) -> None:
        """Grow; an attached device has the new size when this returns (T-06)."""
        if snapname is not None:
            raise NotSupported("a snapshot can't be resized")
        name = self.parse_volname(volname).name
        now = self._size(storage, volname)
        if size < now:
            raise StorageError(f"can't shrink volume '{volname}' from {now} to {size} bytes")
        rounded = -(-size // self.allocation_unit) * self.allocation_unit
        attachment = self.attached(storage, name, None)
        if rounded > now:
            self.grow(storage, name, Bytes(rounded), attachment.device if attachment else None)

    def rename_volume(
        self,
        storage: Storage[ConfigT],
        source_volname: str,
        target_vmid: int,
        target_volname: str | None = None,
    ) -> str:
        """Give a volume to another guest; a linked clone keeps naming its base."""
        self._must("rename")
        source = self.parse_volname(source_volname)
        if target_volname:
            self._check_owner(target_volname, target_vmid)
        self._release(storage, source.name)
        new = self._take(
            storage,
            target_vmid,
            target_volname,
            lambda chosen: self.rename(storage, source.name, chosen),
        )
        return f"{source.base_name}/{new}" if source.base_name else new

    def create_base(self, storage: Storage[ConfigT], volname: str) -> str:
        """``vm-…`` becomes ``base-…``."""
        self._must("rename")
        parsed = self.parse_volname(volname)
        if parsed.is_base:
            raise StorageError(f"volume '{volname}' is a base image already")
        if self.snapshots(storage, parsed.name):
            raise StorageError(f"volume '{volname}' has snapshots, it can't become a base image")
        self._release(storage, parsed.name)
        new = "base-" + parsed.name.removeprefix("vm-")
        self.rename(storage, parsed.name, new)
        return f"{parsed.base_name}/{new}" if parsed.base_name else new

    def clone_image(
        self,
        storage: Storage[ConfigT],
        volname: str,
        vmid: int,
        snapname: str | None = None,
    ) -> str:
        """A clone for guest *vmid*; its name says the base only if it depends on it (T-22)."""
        self._must("clone")
        parsed = self.parse_volname(volname)
        if snapname is not None and not self.clones_snapshots:
            raise NotSupported("snapshots can't be cloned")
        if snapname is None and not parsed.is_base:
            raise StorageError("clone_image only works on base images")
        dependent = False

        def clone(chosen: str) -> None:
            nonlocal dependent
            dependent = self.clone(storage, parsed.name, snapname, chosen)

        new = self._take(storage, vmid, None, clone)
        return f"{parsed.name}/{new}" if dependent else new

    # --- helpers -------------------------------------------------------------------------------

    def _take(
        self, storage: Storage[ConfigT], vmid: int, name: str | None, make: Callable[[str], None]
    ) -> str:
        """Make a volume under *name* or the first free one; the backend settles races (T-47)."""
        for chosen in [name] if name else self._free_names(storage, vmid):
            try:
                make(chosen)
            except VolumeExists:
                if name:
                    raise StorageError(f"volume '{name}' already exists") from None
                continue
            storage.on_failure(self._discard, storage, chosen)
            return chosen
        raise StorageError(f"unable to allocate a volume name for guest {vmid}")

    def _discard(self, storage: Storage[ConfigT], name: str) -> None:
        self.delete(storage, name)

    def _free_names(self, storage: Storage[ConfigT], vmid: int) -> Iterator[str]:
        names = self.volume_names(storage)
        taken = {name.removeprefix("base-").removeprefix("vm-") for name in names}
        for number in range(MAX_VOLUMES_PER_GUEST):
            if f"{vmid}-disk-{number}" not in taken:
                yield f"vm-{vmid}-disk-{number}"

    def _parsed(self, volume: BlockVolume) -> VolumeName | None:
        try:
            return self.parse_volname(volume.name)
        except StorageError:
            return None

    def _size(self, storage: Storage[ConfigT], volname: str) -> int:
        size = self.size(storage, self.parse_volname(volname).name)
        if size is None:
            raise StorageError(f"volume '{storage.volid(volname)}' does not exist")
        return size

    def _release(self, storage: Storage[ConfigT], name: str) -> None:
        if self.attached(storage, name, None) is not None:
            self.detach(storage, name, None)

    def _check_format(self, format: str) -> None:
        if format != "raw":
            raise StorageError(f"unsupported format '{format}'")

    def _check_owner(self, name: str, vmid: int) -> None:
        """C-056: names are PVE's, and say whose the volume is."""
        try:
            owner = self.parse_volname(name).vmid
        except StorageError:
            owner = None
        if owner != vmid or "/" in name:
            raise StorageError(f"illegal name '{name}' - should be 'vm-{vmid}-*'")

    def _must(self, verb: str) -> None:
        if not can(self, verb):
            raise NotSupported(f"storage type '{self.type}' does not support this ({verb})")
