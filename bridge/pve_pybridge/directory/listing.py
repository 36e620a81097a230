# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Listing what the storage holds: disk images, and the files of the other content types.

One broken or foreign file never hides the others (T-40): freeing, rescanning and destroying guests
all start from these lists.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..errors import StorageError
from ..model import Volume, VolumeSize
from ..storage import Storage
from . import qemu_img
from .activation import Activation
from .archives import parse_archive, protection_file, read_first_line
from .config import DirectoryConfigT
from .layout import image_format

_WORKERS: Final = 4
_QUERY_SECONDS: Final = 30.0
"""For one image; PVE waits without end, and with it everything that lists this storage."""
_GUEST_DIR: Final = re.compile(r"[1-9][0-9]+", re.ASCII)
_PARENT: Final = re.compile(r"\.\./([0-9]+)/([^/]+\.(?:raw|qcow2|vmdk|subvol))", re.ASCII)
_ISO: Final = re.compile(r"[^/]+\.(?:iso|img)", re.IGNORECASE)
_VZTMPL: Final = re.compile(r"[^/]+\.(?:(tar)|tar\.(gz|xz|zst|bz2))", re.IGNORECASE)
_BACKUP: Final = re.compile(r"[^/]+\.(tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)")
_IMPORT: Final = re.compile(r"[a-zA-Z0-9.+=_-]+\.(ova|ovf|qcow2|raw|vmdk)")


class Listing(Activation[DirectoryConfigT]):
    """list_images and list_volumes."""

    def list_images(
        self,
        storage: Storage[DirectoryConfigT],
        vmid: int | None = None,
        vollist: Sequence[str] | None = None,
    ) -> Sequence[Volume]:
        """Disk images; one that isn't in the format its name says has format ``invalid``."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  2 ms for every server

        base = self.subdir(storage, "images")
        found = list(_image_files(base, vmid if vollist is None else None))
        with ThreadPoolExecutor(_WORKERS) as pool:
            sizes = pool.map(lambda image: _size_or_reason(storage, image), found)
            entries = [
                _describe(storage, image, size) for image, size in zip(found, sizes, strict=True)
            ]
        volumes = [volume for volume in entries if volume is not None]
        if vollist is not None:
            wanted = set(vollist)
            return [volume for volume in volumes if storage.volid(volume.volname) in wanted]
        return volumes

    def list_volumes(
        self,
        storage: Storage[DirectoryConfigT],
        vmid: int | None,
        content_types: Sequence[str],
    ) -> Sequence[Volume]:
        """Everything of *content_types*; images of containers count as rootdir."""
        result: list[Volume] = []
        images: Sequence[Volume] | None = None
        for content in content_types:
            if content in ("images", "rootdir"):
                if images is None:
                    images = self.list_images(storage, vmid, None)
                result += (v for v in _by_guest_type(storage, images) if v.content == content)
            elif content in ("iso", "vztmpl") and vmid is not None:
                continue  # they belong to nobody
            elif content in _DESCRIBE:
                directory = self.subdir(storage, content)
                for path in _files(directory):
                    volume = _DESCRIBE[content](storage, path, vmid)
                    if volume is not None:
                        result.append(replace(volume, content=content))
        return result


@dataclass(frozen=True, slots=True)
class _Image:
    """One image file, with the format its name says."""

    path: str
    owner: int
    name: str
    format: str


def _image_files(base: str, vmid: int | None) -> Iterator[_Image]:
    """Every image file below *base*, or those of one guest."""
    owners = [str(vmid)] if vmid is not None else _entries(base)
    for owner in owners:
        if not _GUEST_DIR.fullmatch(owner):
            continue
        for name in _entries(f"{base}/{owner}"):
            format = image_format(name)
            if format is not None and not name.startswith("."):
                yield _Image(f"{base}/{owner}/{name}", int(owner), name, format)


def _entries(directory: str) -> list[str]:
    """Names in *directory*; one that is missing or no directory has none."""
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as err:
        raise StorageError(f"can't list '{directory}' - {err.strerror}") from None


def _size_or_reason(storage: Storage[DirectoryConfigT], image: _Image) -> VolumeSize | StorageError:
    try:
        return qemu_img.size_info(storage, image.path, image.format, _QUERY_SECONDS)
    except StorageError as err:
        return err


def _describe(
    storage: Storage[DirectoryConfigT], image: _Image, size: VolumeSize | StorageError
) -> Volume | None:
    format = image.format
    if isinstance(size, StorageError):
        second = _second_look(storage, image.path, format, size)
        if second is None:
            return None
        size, format = second, "invalid"
    clone_of = _PARENT.fullmatch(size.parent or "")
    prefix = f"{clone_of[1]}/{clone_of[2]}/" if clone_of else ""
    return Volume(
        volname=f"{prefix}{image.owner}/{image.name}",
        format=format,
        size=size.size,
        vmid=image.owner,
        used=size.used,
        parent=size.parent,
        ctime=size.ctime,
    )


def _second_look(
    storage: Storage[DirectoryConfigT], path: str, format: str, reason: StorageError
) -> VolumeSize | None:
    """A file that can't be read as *format* is still there and still takes space."""
    storage.checkpoint()
    if not os.path.exists(path):
        if os.path.islink(path):
            storage.warn(str(reason))
        return None  # removed meanwhile, or a link to nothing
    if os.path.isdir(path) or format == "subvol":
        storage.warn(str(reason))
        return None
    if str(reason).endswith(f"Image is not in {format} format"):
        storage.warn(f"image '{path}' is not in expected format '{format}', querying as raw")
    else:
        storage.warn(f"image '{path}' can't be queried, querying as raw: {reason}")
    try:
        return qemu_img.size_info(storage, path, "raw", _QUERY_SECONDS)
    except StorageError as err:
        storage.warn(str(err))
        return None


def _by_guest_type(
    storage: Storage[DirectoryConfigT], images: Sequence[Volume]
) -> Iterator[Volume]:
    for volume in images:
        guest = None if volume.vmid is None else storage.guest_type(volume.vmid)
        yield replace(volume, content="rootdir" if guest == "lxc" else "images")


def _files(directory: str) -> Iterator[str]:
    return (f"{directory}/{name}" for name in _entries(directory) if not name.startswith("."))


_Describe = Callable[[Storage[DirectoryConfigT], str, int | None], Volume | None]


def _file(path: str, volname: str, format: str) -> Volume | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return Volume(volname=volname, format=format, size=found.st_size, ctime=int(found.st_ctime))


def _iso(storage: Storage[DirectoryConfigT], path: str, vmid: int | None) -> Volume | None:
    name = os.path.basename(path)
    return _file(path, f"iso/{name}", "iso") if _ISO.fullmatch(name) else None


def _vztmpl(storage: Storage[DirectoryConfigT], path: str, vmid: int | None) -> Volume | None:
    name = os.path.basename(path)
    match = _VZTMPL.fullmatch(name)
    if match is None:
        return None
    return _file(path, f"vztmpl/{name}", "tar" if match[1] else f"t{match[2]}")


def _snippet(storage: Storage[DirectoryConfigT], path: str, vmid: int | None) -> Volume | None:
    return _file(path, f"snippets/{os.path.basename(path)}", "snippet")


def _import(storage: Storage[DirectoryConfigT], path: str, vmid: int | None) -> Volume | None:
    name = os.path.basename(path)
    match = _IMPORT.fullmatch(name)
    return _file(path, f"import/{name}", match[1]) if match else None


def _backup(storage: Storage[DirectoryConfigT], path: str, vmid: int | None) -> Volume | None:
    name = os.path.basename(path)
    match = _BACKUP.fullmatch(name)
    if match is None or (vmid is not None and not re.search(rf"\S+-{vmid}-\S+", name)):
        return None
    volume = _file(path, f"backup/{name}", match[1])
    if volume is None:
        return None
    archive = parse_archive(name)
    owner = re.search(rf"-([1-9][0-9]{{2,8}})-[^/]+\.{re.escape(match[1])}\Z", name)
    return replace(
        volume,
        ctime=volume.ctime if archive is None or archive.ctime is None else archive.ctime,
        subtype="unknown" if archive is None else archive.type,
        vmid=vmid if vmid is not None else int(owner[1]) if owner else None,
        notes=read_first_line(storage, f"{path}.notes"),
        protected=True if os.path.exists(protection_file(path)) else None,
    )


_DESCRIBE: Final[Mapping[str, _Describe]] = {  # type: ignore[type-arg]
    "iso": _iso,
    "vztmpl": _vztmpl,
    "backup": _backup,
    "snippets": _snippet,
    "import": _import,
}
"""Content type → what a file of it is; None when it is none of that type."""
