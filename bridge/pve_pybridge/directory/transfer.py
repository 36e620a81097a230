# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes as streams: export to and import from a descriptor, in PVE's formats.

``raw+size``, ``qcow2+size``, ``vmdk+size`` for images (the last two only with their snapshots),
``tar+size`` for container directories, ``raw+size`` for ISO images and other files.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any, Final

from .. import streams
from ..errors import StorageError
from ..model import VolumeName
from ..storage import Storage
from . import files, qemu_img
from .config import DirectoryConfigT
from .images import Images

_TAR: Final = (
    "tar",
    *("--one-file-system", "-p", "--sparse", "--numeric-owner", "--acls"),
    *("--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"),
    *("--warning=no-file-ignored", "--warning=no-xattr-write"),
)
_SECTOR: Final = 512
_FILE_MODE: Final = 0o644
_PLAIN: Final = ("raw", "ova", "ovf")
"""Formats whose file is the raw stream."""


class Transfer(Images[DirectoryConfigT]):
    """volume_export and volume_import."""

    def volume_export(
        self,
        storage: Storage[DirectoryConfigT],
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
    ) -> None:
        """Write a volume to *fh*, without its snapshots unless the format keeps them."""
        if with_snapshots and storage.config.snapshot_as_volume_chain:
            raise StorageError("cannot export volumes together with their snapshots")
        refusal = StorageError(f"volume export format {format} not available for {storage.type}")
        if snapshot is not None or base_snapshot is not None:
            raise refusal
        own_format = self.parse_volname(volname).format
        wanted = {"subvol": "tar+size"}.get(own_format, "raw+size")
        if format != (f"{own_format}+size" if with_snapshots else wanted):
            raise refusal
        if with_snapshots and own_format not in ("qcow2", "vmdk"):
            raise refusal
        path = self.path(storage, volname)
        size = qemu_img.size_info(storage, path, own_format).size
        streams.write_header(storage, fh, size)
        if format == "tar+size":
            storage.run([*_TAR, "-cf", "-", "-C", path, "."], stdout=fh, log_stderr=True)
        elif with_snapshots or own_format in _PLAIN:
            command = ["dd", f"if={path}", "bs=64k", "status=progress"]
            storage.run(command, stdout=fh, log_stderr=True)
        else:
            _export_converted(storage, fh, path, own_format, size)

    def volume_import(
        self,
        storage: Storage[DirectoryConfigT],
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
        allow_rename: bool = False,
    ) -> str | None:
        """Make a volume from *fh*; a stream that ends early fails, and the volume is removed."""
        volume = self.parse_volname(volname)
        stream = _checked_stream(storage, volume, format, bool(with_snapshots))
        is_image = volume.vtype in ("images", "rootdir")
        if not is_image and volume.vtype not in ("import", "iso", "snippets", "vztmpl"):
            raise StorageError(f"importing volume of type '{volume.vtype}' not implemented")
        # PVE activates nothing on this side: without this, an unmounted directory would be filled
        self.activate_storage(storage)
        path = self.path(storage, volname)
        keep_name = True
        if os.path.lexists(path):
            if not allow_rename or not is_image:
                raise StorageError(f"file '{path}' already exists")
            storage.warn(f"file '{path}' already exists - importing with a different name")
            keep_name = False
        size = streams.read_header(storage, fh)
        if not is_image:
            _import_file(storage, fh, path, size)
            return volname
        if volume.vmid is None or (keep_name and volume.base_name is not None):
            raise StorageError(f"internal error: '{volname}' can't be allocated")
        # whatever is allocated now would be overwritten, so an empty file is enough
        name = self.reserve_image(
            storage, volume.vmid, volume.format, volume.name if keep_name else None
        )
        path = f"{self.image_dir(storage, volume.vmid)}/{name}"
        _import_image(storage, fh, path, stream, size)
        return f"{volume.vmid}/{name}"


def _export_converted(storage: Storage[Any], fh: int, path: str, format: str, size: int) -> None:
    from . import nbd  # noqa: PLC0415  2 ms for its temporary directory and thread

    done, reported = 0, time.monotonic()
    for chunk in nbd.read_image(storage, path, format, size):
        streams.write(storage, fh, chunk)
        done += len(chunk)
        if time.monotonic() - reported > 1:
            storage.progress(done, size)
            reported = time.monotonic()


def _checked_stream(
    storage: Storage[Any], volume: VolumeName, format: str, with_snapshots: bool
) -> str:
    """The data format of a stream, if *volume* can be made from it."""
    match = re.fullmatch(r"(raw|tar|qcow2|vmdk)\+size", format)
    if match is None:
        raise StorageError(f"volume import format '{format}' not available for {storage.type}")
    stream = match[1]
    keeps_snapshots = stream in ("qcow2", "vmdk")
    if keeps_snapshots != with_snapshots:
        how = "without" if keeps_snapshots else "with"
        raise StorageError(f"format {format} cannot be imported {how} snapshots")
    expected = "subvol" if stream == "tar" else stream
    if volume.vtype in ("images", "rootdir") and volume.format != expected:
        raise StorageError(f"cannot import format {format} into a file of format {volume.format}")
    return stream


def _import_image(storage: Storage[Any], fh: int, path: str, stream: str, size: int) -> None:
    if stream == "tar":
        streams.feed_tar(storage, fh, [*_TAR, "-C", path, "-xf", "-"])
        return
    storage.run(["dd", f"of={path}", "conv=sparse", "bs=64k"], stdin=fh, log_stderr=True)
    if stream == "raw":
        _check_length(path, size)
        return
    qemu_img.check_complete(storage, path, stream)
    found = qemu_img.info(storage, path, stream)["virtual-size"]
    if found != size:
        raise StorageError(f"import: image has {found} bytes instead of the announced {size}")


def _import_file(storage: Storage[Any], fh: int, path: str, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with files.failing_as(f"can't create file '{path}'"):
        target = os.open(path, flags, _FILE_MODE)
    storage.on_failure(files.unlink, path)
    try:
        storage.run(["dd", "bs=64k"], stdin=fh, stdout=target, log_stderr=True)
    finally:
        os.close(target)
    _check_length(path, size)


def _check_length(path: str, size: int) -> None:
    """The header counts whole sectors, a file's stream may end inside the last one (C-092)."""
    received = os.stat(path).st_size
    if received + _SECTOR <= size or (size % _SECTOR and received < size):
        raise StorageError(f"import: stream ended after {received} of {size} bytes")
