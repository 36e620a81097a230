# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""qcow2 image files as a plugin's own store: what is in them, and how they are made."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any, Final

from ..directory.qemu_img import QEMU_IMG
from ..newfile import path_of
from ..storage import Storage

_HEADER: Final = struct.Struct(">4sIQIIQ")
"""Magic, version, where the backing file's name is and how long, cluster bits, size."""


@dataclass(frozen=True, slots=True)
class Header:
    """Size of the disk in bytes, name of the backing file, and of the file: bytes used, ctime."""

    size: int
    backing: str | None
    used: int
    ctime: int


def header(path: str) -> Header | None:
    """What *path* says of itself; None when it is gone or no qcow2 image (T-40).

    A list of a hundred volumes shall not start a hundred processes.
    """
    try:
        with open(path, "rb") as file:
            magic, _, offset, length, _, size = _HEADER.unpack(file.read(_HEADER.size))
            if magic != b"QFI\xfb":
                return None
            file.seek(offset)
            backing = os.fsdecode(file.read(length)) if offset else None
            stat = os.fstat(file.fileno())
    except (OSError, ValueError, struct.error):
        return None
    return Header(size, backing, stat.st_blocks * 512, int(stat.st_ctime))


def create(storage: Storage[Any], descriptor: int, size: int, backing: str | None = None) -> None:
    """Make an empty file an image, on top of *backing* in the same directory if given."""
    command = [QEMU_IMG, "create", "-q", "-f", "qcow2"]
    if backing is not None:
        command += ["-u", "-F", "qcow2", "-b", backing]  # -u: it would look in /proc for it
    storage.run([*command, path_of(descriptor), str(size)])
