# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""qcow2 image files as a plugin's own store: what is in them, and steps nobody can be killed in.

A file that is being made has no name, so that it vanishes with its maker; it gets one, and a file
changes its name, in one step and never over another file (C-060, T-47).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..directory.qemu_img import QEMU_IMG
from ..errors import StorageError
from ..storage import Storage

_HEADER: Final = struct.Struct(">4sIQIIQ")
"""Magic, version, where the backing file's name is and how long, cluster bits, size."""
_RENAME_NOREPLACE: Final = 1
_AT_FDCWD: Final = -100


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


@contextlib.contextmanager
def nameless(folder: str) -> Iterator[int]:
    """An empty file without a name; its descriptor."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise StorageError(f"can't create a file in '{folder}': {err.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def create(storage: Storage[Any], descriptor: int, size: int, backing: str | None = None) -> None:
    """Make the file an image, on top of *backing* in the same directory if given."""
    command = [QEMU_IMG, "create", "-q", "-f", "qcow2"]
    if backing is not None:
        command += ["-u", "-F", "qcow2", "-b", backing]  # -u: it would look in /proc for it
    storage.run([*command, f"/proc/{os.getpid()}/fd/{descriptor}", str(size)])


def give_name(descriptor: int, path: str) -> None:
    """Let the file appear as *path*; FileExistsError when there is one."""
    # the directory's descriptor doesn't matter, but only with one does Python follow the link
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def rename(path: str, new_path: str) -> None:
    """Rename; FileExistsError when there is a *new_path*."""
    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(path), os.fsencode(new_path)
    if libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            raise FileExistsError(number, os.strerror(number), new_path)
        raise StorageError(f"can't rename '{path}': {os.strerror(number)}")
