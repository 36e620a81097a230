# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all: for plugins whose volumes are files.

A file that is being made has no name, so that it vanishes with its maker, whatever kills that; it
gets one, and a file changes its name, in one step and never over another file (C-060, T-47).
Where the file system has no files without names (NFS, FUSE), it is a hidden one that tells its
maker: ``remove_leftovers`` removes those of the dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .alive import is_alive, me
from .errors import StorageError

_PREFIX: Final = ".new-"
_RENAME_NOREPLACE: Final = 1
_AT_FDCWD: Final = -100
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


@contextlib.contextmanager
def unnamed(folder: str) -> Iterator[int]:
    """An empty file for ``give_name`` or ``replace``; its descriptor.  Gone if neither is called.

    Commands reach it as ``path_of`` says.
    """
    hidden = None
    try:
        try:
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as err:
            if err.errno not in _NO_TMPFILE:
                raise
            hidden = hidden_name(folder)
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(hidden, flags, 0o600)
    except OSError as err:
        raise StorageError(f"can't create a file in '{folder}': {err.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        if hidden is not None:
            os.unlink(hidden)


def path_of(descriptor: int) -> str:
    """A path for other processes, valid as long as the descriptor is open."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def give_name(descriptor: int, path: str) -> None:
    """Let the file, written to disk, appear as *path*; FileExistsError when there is one."""
    os.fsync(descriptor)
    # the directory's descriptor doesn't matter, but only with one does Python follow the link
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def replace(descriptor: int, path: str) -> None:
    """Let the file take the place of *path*."""
    hidden = hidden_name(os.path.dirname(path))
    give_name(descriptor, hidden)
    os.replace(hidden, path)


def rename(path: str, new_path: str) -> None:
    """Rename; FileExistsError when there is a *new_path*."""
    import ctypes  # noqa: PLC0415  2 ms and 0.3 MiB that few plugins need

    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(path), os.fsencode(new_path)
    if libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            raise FileExistsError(number, os.strerror(number), new_path)
        raise StorageError(f"can't rename '{path}': {os.strerror(number)}")


def hidden_name(folder: str) -> str:
    """A path that nobody else uses, and that tells whose it is."""
    return f"{folder}/{_PREFIX}{me()}-{time.monotonic_ns()}"


def remove_leftovers(folder: str) -> list[str]:
    """Remove what processes that are gone had not finished; the names of those files."""
    removed = []
    for file in os.listdir(folder):
        if file.startswith(_PREFIX) and not is_alive(file.removeprefix(_PREFIX).rpartition("-")[0]):
            Path(folder, file).unlink(missing_ok=True)
            removed.append(file)
    return removed
