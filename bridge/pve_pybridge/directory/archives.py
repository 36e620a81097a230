# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backup archives by their names, and the files beside them: notes, log, protection mark.

Facts about single files; which backups are kept is decided in ``retention``.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ..errors import StorageError
from ..storage import Storage

_ARCHIVE: Final = re.compile(
    r"vzdump-(?P<type>lxc|openvz|qemu)-(?P<rest>.+)"
    r"\.(?P<extension>tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)"
)
_STANDARD: Final = re.compile(
    r"([1-9][0-9]{2,8})-([0-9]{4})_([0-9]{2})_([0-9]{2})-([0-9]{2})_([0-9]{2})_([0-9]{2})"
)


@dataclass(frozen=True, slots=True)
class Archive:
    """What the name of a backup archive says; *vmid* and *ctime* only in the standard form."""

    type: str
    stem: str
    vmid: int | None = None
    ctime: int | None = None

    @property
    def is_standard(self) -> bool:
        """Whether vzdump has named it: only such backups are ever pruned (T-38)."""
        return self.ctime is not None


def parse_archive(name: str) -> Archive | None:
    """The archive called *name*; None when it is none, or bears a time that never was."""
    match = _ARCHIVE.fullmatch(name)
    if match is None:
        return None
    stem = name.removesuffix(f".{match['extension']}")
    standard = _STANDARD.fullmatch(match["rest"])
    if standard is None:
        return Archive(match["type"], stem)
    vmid, *moment = (int(part) for part in standard.groups())
    year, month, day, hour, minute, second = moment
    try:
        when = datetime(year, month, day, hour, minute, second)  # vzdump's local time
    except ValueError:
        return None
    return Archive(match["type"], stem, vmid, int(when.timestamp()))


def protection_file(path: str) -> str:
    """The file whose presence protects the backup *path*."""
    return f"{path}.protected"


def remove_archive(storage: Storage[Any], path: str) -> None:
    """Remove a backup with its log and notes; a missing one is no error, a protected one is."""
    if os.path.exists(protection_file(path)):
        raise StorageError(f"cannot remove protected archive '{path}'")
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as err:
        raise StorageError(f"removing archive {path} failed: {err.strerror}") from None
    archive = parse_archive(os.path.basename(path))
    if archive is None or not archive.is_standard:
        return
    log = f"{os.path.dirname(path)}/{archive.stem}.log"
    for kind, file in (("log", log), ("notes", f"{path}.notes")):
        try:
            os.unlink(file)
        except FileNotFoundError:
            pass
        except OSError as err:
            storage.warn(f"Removing {kind} file failed: {err.strerror}")


def read_first_line(storage: Storage[Any], path: str) -> str | None:
    """First line of a notes file; None when there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    except OSError as err:
        storage.warn(f"can't read notes '{path}' - {err.strerror}")
        return None
    return decode(line.removesuffix(b"\n")) if line else None


def decode(data: bytes) -> str:
    """Notes as text: UTF-8, or, as older ones may be, one character per byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write *path* so that a reader sees the old or the new content, never a part."""
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
