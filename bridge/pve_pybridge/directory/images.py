# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Disk images from birth to death: allocate, clone, turn into a base, rename, resize, free.

Whatever is created is registered for removal first, so that a failed or cancelled call leaves
nothing behind (C-060).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..errors import StorageError
from ..model import Bytes, Cleanup, Seconds, VolumeSize
from ..storage import Storage
from . import chain, files, qemu_img
from .config import DirectoryConfigT
from .layout import free_names, image_format, owner_of
from .snapshots import Snapshots

_CHATTR: Final = "/usr/bin/chattr"


class Images(Snapshots[DirectoryConfigT]):
    """The life of disk images."""

    def alloc_image(
        self,
        storage: Storage[DirectoryConfigT],
        vmid: int,
        format: str,
        name: str | None,
        size: Bytes,
    ) -> str:
        """A new image ``vm-<vmid>-disk-<n>.<format>``, or *name*, as PVE chooses some (T-08)."""
        if name:
            owner = owner_of(name)
            if owner is not None and owner != vmid:
                raise StorageError(f"illegal name '{name}' - should be 'vm-{vmid}-*'")
            _check_extension(name, format)
        if format == "subvol" and size != 0:
            raise StorageError("storage does not support subvol quotas")
        preallocation = storage.config.preallocation_for(format)
        name = self.reserve_image(storage, vmid, format, name)
        if format != "subvol":
            path = f"{self.image_dir(storage, vmid)}/{name}"
            qemu_img.create(storage, path, format, size, preallocation)
        return f"{vmid}/{name}"

    def reserve_image(
        self, storage: Storage[DirectoryConfigT], vmid: int, format: str, name: str | None
    ) -> str:
        """Take *name*, or the next free one, by an empty file that goes away if the call fails."""
        if format not in self.formats:
            raise StorageError(f"unsupported format '{format}'")
        directory = self.image_dir(storage, vmid)
        names: Iterable[str] = (name,) if name else free_names(vmid, format, _names(directory))
        taken = files.reserve(directory, names, as_directory=format == "subvol")
        if taken is None and name:
            raise StorageError(f"disk image '{directory}/{name}' already exists")
        if taken is None:
            raise StorageError(
                f"unable to allocate an image name for VM {vmid} in storage '{storage.storeid}'"
            )
        storage.on_failure(files.discard, f"{directory}/{taken}")
        return taken

    def clone_image(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        vmid: int,
        snapname: str | None = None,
    ) -> str:
        """A qcow2 image on top of a base image, which it names relative to itself."""
        base = self.parse_volname(volname)
        if base.vtype != "images":
            raise StorageError(f"clone_image on wrong vtype '{base.vtype}'")
        if snapname:
            raise StorageError("this storage type does not support clone_image on snapshot")
        if base.format == "subvol":
            raise StorageError("this storage type does not support clone_image on subvolumes")
        if not base.is_base:
            raise StorageError("clone_image only works on base images")
        preallocation = storage.config.preallocation_for(base.format)
        name = self.reserve_image(storage, vmid, "qcow2", None)
        backing = f"../{base.vmid}/{base.name}"
        storage.log(f"clone {volname}: {base.vtype}, {name}, {vmid} to {name} (base={backing})")
        path = f"{self.image_dir(storage, vmid)}/{name}"
        qemu_img.create_overlay(storage, path, backing, base.format, preallocation)
        return f"{base.vmid}/{base.name}/{vmid}/{name}"

    def create_base(self, storage: Storage[DirectoryConfigT], volname: str) -> str:
        """Rename to ``base-…`` and make it read-only, immutable where the file system can."""
        image = self.parse_volname(volname)
        if image.vtype != "images":
            raise StorageError(f"create_base on wrong vtype '{image.vtype}'")
        if image.is_base:
            raise StorageError("create_base not possible with base image")
        path = self.path(storage, volname)
        parent = qemu_img.size_info(storage, path, image.format).parent
        prefix = ""
        if image.base_name is not None:
            if parent != f"../{image.base_vmid}/{image.base_name}":
                raise StorageError(f"volname '{volname}' contains wrong information about parent")
            prefix = f"{image.base_vmid}/{image.base_name}/"
        name = re.sub(r"\A(?:vm|subvol)-", "base-", image.name)
        new_volname = f"{prefix}{image.vmid}/{name}"
        new_path = self.path(storage, new_volname)
        if os.path.lexists(new_path):
            raise StorageError(f"file '{new_path}' already exists")
        files.rename(path, new_path)
        storage.on_failure(_undo_base, new_path, path)
        if image.format != "subvol":  # there, it is the mode of the container's root directory
            try:
                os.chmod(new_path, 0o444)
            except OSError as err:
                storage.warn(f"chmod '{new_path}' failed - {err.strerror}")
        _chattr(storage, "+i", new_path)
        return new_volname

    def free_image(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        is_base: bool = False,
        format: str | None = None,
    ) -> Cleanup | None:
        """Delete an image, or any other file of the storage; a missing one is only a warning."""
        if self.get_volume_attribute(storage, volname, "protected"):
            raise StorageError(f"cannot remove protected volume '{volname}' on '{storage.storeid}'")
        path = self.path(storage, volname)
        if is_base:
            _chattr(storage, "-i", path)
        if format == "subvol":
            with files.failing_as(f"removing '{path}' failed"):
                if os.path.lexists(path):
                    import shutil  # noqa: PLC0415  as in files.discard

                    shutil.rmtree(path)
        elif not os.path.lexists(path):
            storage.warn(f"disk image '{path}' does not exist")
            return None
        else:
            layers = self._layers(storage, volname)
            files.unlink(path)
            for layer in layers:
                try:
                    files.unlink(layer)
                except StorageError as err:
                    storage.warn(str(err))
        files.remove_if_empty(os.path.dirname(path))
        return None

    def _layers(self, storage: Storage[DirectoryConfigT], volname: str) -> list[str]:
        """Files of the snapshots below a volume; an unreadable image must still be removable."""
        image = self.parse_volname(volname)
        if not storage.config.snapshot_as_volume_chain or image.format != "qcow2":
            return []
        try:
            known = self.volume_snapshot_info(storage, volname)
        except StorageError as err:
            storage.warn(f"can't tell the snapshots of '{volname}', they stay: {err}")
            return []
        found = (known[name].file for name in chain.oldest_first(known))
        return [file for file in found if file]

    def volume_size_info(
        self, storage: Storage[DirectoryConfigT], volname: str, timeout: Seconds | None = None
    ) -> VolumeSize:
        """Size of a volume, by qemu-img within *timeout* seconds."""
        format = self.parse_volname(volname).format
        return qemu_img.size_info(storage, self.path(storage, volname), format, timeout)

    def volume_resize(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        size: Bytes,
        running: bool = False,
        snapname: str | None = None,
    ) -> None:
        """Grow an image; of a running guest QEMU does it."""
        format = self.parse_volname(volname).format
        if not volname.endswith((".raw", ".qcow2")):
            raise StorageError("can't resize this image format")
        if running:
            return
        config = storage.config
        if snapname and not config.snapshot_as_volume_chain:
            raise StorageError(
                "resizing a snapshot is not supported without 'snapshot-as-volume-chain'"
            )
        path = self.path(storage, volname, snapname or None)
        qemu_img.resize(storage, path, format, size, config.preallocation_for(format))

    def rename_volume(
        self,
        storage: Storage[DirectoryConfigT],
        source_volname: str,
        target_vmid: int,
        target_volname: str | None = None,
    ) -> str:
        """Move an image to another guest's directory; *target_volname* is a bare file name."""
        image = self.parse_volname(source_volname)
        source = self.path(storage, source_volname)
        if storage.config.snapshot_as_volume_chain:
            current = self.volume_snapshot_info(storage, source_volname).get("current")
            if current is not None and current.parent is not None:
                raise StorageError(
                    "we can't rename volume if a snapshot backed by a volume-chain exists"
                )
        if not os.path.lexists(source):
            raise StorageError(f"volume '{storage.volid(source_volname)}' does not exist")
        directory = self.image_dir(storage, target_vmid)
        if target_volname:
            _check_extension(target_volname, image.format)
        if target_volname and os.path.lexists(f"{directory}/{target_volname}"):
            raise StorageError(f"target volume '{target_volname}' already exists")
        name = self.reserve_image(storage, target_vmid, image.format, target_volname)
        files.rename(source, f"{directory}/{name}")
        storage.on_failure(files.rename, f"{directory}/{name}", source)
        prefix = f"{image.base_vmid}/{image.base_name}/" if image.base_name else ""
        return f"{prefix}{target_vmid}/{name}"

    def qemu_blockdev_options(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> Mapping[str, object]:
        """``file``, or ``host_device`` for an image that is a link to a device."""
        snapname = options.get("snapshot-name")
        format = self.parse_volname(volname).format
        path = self.path(storage, volname, snapname)
        if snapname and not storage.config.snapshot_as_volume_chain:
            raise StorageError(f"cannot attach only the snapshot of a '{format}' image")
        with files.failing_as(f"stat for '{path}' failed"):
            mode = os.stat(path).st_mode
        is_device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
        return {"driver": "host_device" if is_device else "file", "filename": path}


def _names(directory: str) -> list[str]:
    with files.failing_as(f"can't list '{directory}'"):
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []


def _check_extension(name: str, format: str) -> None:
    found = image_format(name)
    if found is None:
        raise StorageError(f"unable to parse volume filename '{name}'")
    if found != format:
        raise StorageError(
            f"illegal name '{name}' - wrong extension for format ('{found} != '{format}')"
        )


def _undo_base(new_path: str, path: str) -> None:
    """Runs when the call is over already, so by means that don't ask whether it still runs."""
    from .. import process  # noqa: PLC0415  3 ms that storage.run has taken by now

    process.run([_CHATTR, "-i", new_path], checkpoint=lambda: None, check=False)
    if os.path.isfile(new_path):
        os.chmod(new_path, files.IMAGE_MODE)
    files.rename(new_path, path)


def _chattr(storage: Storage[Any], flag: str, path: str) -> None:
    """Not every file system has the immutable flag; going without it is no failure."""
    try:
        storage.run([_CHATTR, flag, path])
    except StorageError as err:
        storage.warn(str(err))
