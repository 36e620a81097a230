# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backups: their notes and protection, and pruning.

Texts of errors are those an administrator of PVE's directory storage knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import StorageError
from ..model import PruneEntry
from ..storage import Storage
from .archives import decode, parse_archive, protection_file, remove_archive, replace_file
from .config import DirectoryConfigT
from .listing import Listing
from .retention import Candidate, mark_group

_FALSE: Final = (None, "", "0")


class Backups(Listing[DirectoryConfigT]):
    """Attributes of backups, and prune_backups."""

    def get_volume_attribute(
        self, storage: Storage[DirectoryConfigT], volname: str, attribute: str
    ) -> str | int | bool | None:
        """``notes`` and ``protected`` of a backup; other volumes have neither."""
        if self.parse_volname(volname).vtype != "backup":
            return None
        path = self.path(storage, volname)
        if attribute == "protected":
            return os.path.exists(protection_file(path))
        if attribute == "notes":
            return _notes(f"{path}.notes")
        return None

    def update_volume_attribute(
        self, storage: Storage[DirectoryConfigT], volname: str, attribute: str, value: str | None
    ) -> None:
        """Write or remove notes, set or clear protection."""
        is_backup = self.parse_volname(volname).vtype == "backup"
        if attribute == "notes":
            if not is_backup:
                raise StorageError("only backups can have notes")
            _set_notes(f"{self.path(storage, volname)}.notes", value)
            return
        if not is_backup:
            raise StorageError(f"only backups support attribute '{attribute}'")
        if attribute != "protected":
            raise StorageError(
                f"attribute '{attribute}' is not supported for storage type '{storage.type}'"
            )
        _set_protected(protection_file(self.path(storage, volname)), value not in _FALSE)

    def prune_backups(
        self,
        storage: Storage[DirectoryConfigT],
        keep: Mapping[str, int],
        vmid: int | None = None,
        type: str | None = None,
        dryrun: bool = False,
    ) -> Sequence[PruneEntry]:
        """Mark every backup, and remove those marked so unless *dryrun*."""
        marked = self._marked(storage, keep, vmid, type)
        failed = False
        for candidate in marked:
            if dryrun or candidate.mark != "remove":
                continue
            volid = storage.volid(candidate.volname)
            storage.log(f"removing backup '{volid}'", "info")
            try:
                remove_archive(storage, self.path(storage, candidate.volname))
            except StorageError as err:
                storage.log(f"error when removing backup '{volid}' - {err}", "err")
                failed = True
        if failed:
            raise StorageError("error pruning backups - check log")
        return [PruneEntry(c.volname, c.ctime, c.type, c.mark or "keep", c.vmid) for c in marked]

    def _marked(
        self,
        storage: Storage[DirectoryConfigT],
        keep: Mapping[str, int],
        vmid: int | None,
        type: str | None,
    ) -> list[Candidate]:
        groups: dict[tuple[str, int | None], list[Candidate]] = {}
        found = []
        for volume in self.list_volumes(storage, vmid, ["backup"]):
            archive = parse_archive(os.path.basename(volume.volname))
            kind = archive.type if archive else "unknown"
            if type is not None and type != kind:
                continue
            candidate = Candidate(volume.volname, volume.ctime or 0, kind, volume.vmid)
            if archive is not None and archive.is_standard:
                candidate.vmid, candidate.ctime = archive.vmid, archive.ctime or 0
                if vmid is not None and archive.vmid != vmid:
                    raise StorageError(
                        f"internal error - got wrong VMID '{archive.vmid}' != '{vmid}'"
                    )
                groups.setdefault((kind, archive.vmid), []).append(candidate)
            else:
                candidate.mark = "renamed"
            if volume.protected:
                candidate.mark = "protected"
            found.append(candidate)
        for group in groups.values():
            mark_group(group, keep)
        return found


def _notes(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except (FileNotFoundError, IsADirectoryError):
        return ""
    except OSError as err:
        raise StorageError(f"can't open '{path}' - {err.strerror}") from None


def _set_notes(path: str, notes: str | None) -> None:
    try:
        if notes:
            replace_file(path, notes.encode("utf-8", "surrogateescape"))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except OSError as err:
        what = "write" if notes else "delete"
        raise StorageError(f"could not {what} notes - {err.strerror}") from None


def _set_protected(path: str, protected: bool) -> None:
    if os.path.exists(path) == protected:
        return
    try:
        if protected:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except OSError as err:
        what = "unable to create" if protected else "could not delete"
        raise StorageError(f"{what} protection file '{path}' - {err.strerror}") from None
