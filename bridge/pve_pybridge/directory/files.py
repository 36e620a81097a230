# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""File system steps that leave nothing half done: exclusive names, tidy removal, clear errors.

Two allocations never get the same name, with or without PVE's storage lock (T-47): a name is taken
by creating it, and whoever comes second takes the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

from ..errors import StorageError

IMAGE_MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o740
"""What PVE's umask leaves to a new image and to the directory of its guest."""
_ATTEMPTS: Final = 20


@contextlib.contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Turn an operating system's refusal into ``what - reason``."""
    try:
        yield
    except OSError as err:
        raise StorageError(f"{what} - {err.strerror}") from None


def reserve(directory: str, names: Iterable[str], *, as_directory: bool = False) -> str | None:
    """Create the first of *names* that doesn't exist yet, as an empty file or directory.

    Makes *directory* if necessary.  None when all names exist.
    """
    for name in names:
        path = f"{directory}/{name}"
        for _ in range(_ATTEMPTS):
            with failing_as(f"unable to create directory '{directory}'"):
                os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
            try:
                _create_exclusively(path, as_directory)
                return name
            except FileExistsError:
                break
            except FileNotFoundError:
                continue  # another call has just removed the directory because it was empty
            except OSError as err:
                kind = "subvol" if as_directory else "image"
                raise StorageError(f"unable to create {kind} '{path}' - {err.strerror}") from None
    return None


def _create_exclusively(path: str, as_directory: bool) -> None:
    if as_directory:
        os.mkdir(path, 0o755)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, IMAGE_MODE)
    with contextlib.suppress(OSError):  # file systems without owner and mode
        os.fchmod(descriptor, IMAGE_MODE)
    os.close(descriptor)


def discard(path: str) -> None:
    """Remove what was reserved, whatever became of it, and its directory if that is empty now."""
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil  # noqa: PLC0415  3 ms and its compressors for every server

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    remove_if_empty(os.path.dirname(path))


def remove_if_empty(directory: str) -> None:
    """Don't clutter the storage with directories of guests that have no image left."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def unlink(path: str) -> None:
    """Remove a file that must be there."""
    with failing_as(f"unlink '{path}' failed"):
        os.unlink(path)


def rename(source: str, target: str) -> None:
    """Rename over whatever *target* is."""
    with failing_as(f"rename '{source}' to '{target}' failed"):
        os.rename(source, target)
