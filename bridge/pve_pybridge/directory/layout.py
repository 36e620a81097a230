# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Where things are in a directory storage: sub-directories, paths, snapshot files, disk numbers.

The lowest layer of ``DirectoryPlugin``: no commands, no changes.  All others ask it for paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

from ..errors import StorageError
from ..names import DIRECTORY_NAMES, IMAGE_FORMATS, NamePattern, Rule
from ..plugin import StoragePlugin
from ..storage import Storage
from .config import DirectoryConfigT
from .rules import RULES

SUBDIRS: Final = {
    "images": "images",
    "rootdir": "private",
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "backup": "dump",
    "snippets": "snippets",
    "import": "import",
}
"""Content type → default place below the storage's path."""

MAX_VOLUMES_PER_GUEST: Final = 1024
_IMAGE: Final = re.compile(rf"(?!snap-.*\.qcow2\Z)[^/\s]+\.({IMAGE_FORMATS})", re.ASCII)
_OWNED: Final = re.compile(r"(?:vm|base|subvol|basevol)-([0-9]+)-")


class Layout(StoragePlugin[DirectoryConfigT]):
    """Static facts and paths."""

    content: ClassVar[Sequence[str]] = (
        "images",
        "rootdir",
        "vztmpl",
        "iso",
        "backup",
        "snippets",
        "import",
    )
    default_content: ClassVar[Sequence[str] | None] = ("images", "rootdir")
    formats: ClassVar[Sequence[str]] = ("raw", "qcow2", "vmdk", "subvol")
    names: ClassVar[Sequence[NamePattern]] = DIRECTORY_NAMES
    rules: ClassVar[Mapping[str, Sequence[Rule]]] = RULES

    def subdir(self, storage: Storage[DirectoryConfigT], vtype: str) -> str:
        """The directory of a content type."""
        if vtype not in SUBDIRS:
            raise StorageError(f"unknown vtype '{vtype}'")
        configured = (storage.config.content_dirs or {}).get(vtype)
        return f"{storage.config.path}/{configured or SUBDIRS[vtype]}"

    def image_dir(self, storage: Storage[DirectoryConfigT], vmid: int) -> str:
        """The directory of one guest's images."""
        return f"{self.subdir(storage, 'images')}/{vmid}"

    def path(
        self, storage: Storage[DirectoryConfigT], volname: str, snapname: str | None = None
    ) -> str:
        """File of a volume.

        Internal qcow2 snapshots share it; in a volume chain each snapshot has its own, and
        ``current`` is the live image.
        """
        parsed = self.parse_volname(volname)
        name = parsed.name
        if snapname and storage.config.snapshot_as_volume_chain:
            name = snapshot_file(name, snapname)
        if snapname is not None and parsed.format != "qcow2":
            raise StorageError("can't snapshot this image format")
        if parsed.vtype == "images" and parsed.vmid is not None:
            return f"{self.image_dir(storage, parsed.vmid)}/{name}"
        return f"{self.subdir(storage, parsed.vtype)}/{name}"


def snapshot_file(name: str, snapname: str) -> str:
    """Name of the file that holds snapshot *snapname* of image *name* in a volume chain."""
    return name if snapname == "current" else f"snap-{snapname}-{name}"


def snapshot_of(name: str, file: str) -> str | None:
    """The snapshot whose file is *file*; None when it doesn't belong to image *name*."""
    file = os.path.basename(file)
    if file == name:
        return "current"
    if file.startswith("snap-") and file.endswith(f"-{name}"):
        return file[len("snap-") : -len(name) - 1] or None
    return None


def image_format(name: str) -> str | None:
    """The format an image file's name says; None when it is no image, or one of a snapshot."""
    match = _IMAGE.fullmatch(name)
    return match[1] if match else None


def owner_of(name: str) -> int | None:
    """The guest that an image name like ``vm-100-disk-0.raw`` speaks of; None for other names."""
    match = _OWNED.match(name)
    return int(match[1]) if match else None


def free_names(vmid: int, format: str, taken: Iterable[str]) -> Iterable[str]:
    """Names for a new image of *vmid*, lowest free disk number first.

    Numbers are counted over all formats and kinds, so that a template's disk keeps its number.
    """
    disk = re.compile(rf"(?:vm|base|subvol|basevol)-{vmid}-disk-([0-9]+)", re.ASCII)
    matches = (disk.search(name) for name in taken if image_format(name))
    used = {int(match[1]) for match in matches if match}
    prefix = "subvol" if format == "subvol" else "vm"
    for number in range(MAX_VOLUMES_PER_GUEST):
        if number not in used:
            yield f"{prefix}-{vmid}-disk-{number}.{format}"
