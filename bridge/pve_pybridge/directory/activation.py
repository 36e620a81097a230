# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Bringing the storage up and asking how full it is.

PVE does both every ten seconds on every node (T-19), so they are cheap and can't be blocked by a
dead mount for longer than ``probe`` allows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, MutableMapping

from ..errors import StorageError
from ..model import Hints, Status
from ..storage import Storage
from . import probe
from .config import DirectoryConfigT, checked_path
from .layout import SUBDIRS, Layout


class Activation(Layout[DirectoryConfigT]):
    """The storage's own life cycle, and that of its volumes, which need nothing but to exist."""

    def on_add_hook(
        self,
        storage: Storage[DirectoryConfigT],
        scfg: MutableMapping[str, object],
        sensitive: Mapping[str, str],
    ) -> Mapping[str, object] | None:
        """Refuse a path that PVE couldn't handle, and store it without trailing slashes."""
        scfg["path"] = checked_path(str(scfg.get("path", "")))
        return None

    def activate_storage(self, storage: Storage[DirectoryConfigT]) -> None:
        """Check the mount point, create missing directories, see that none is used twice."""
        path = storage.config.path
        try:
            probe.ask(path, lambda: self._prepare(storage))
        except probe.Unreachable:
            raise _unable(storage, f"directory '{path}' does not exist or is unreachable") from None

    def _prepare(self, storage: Storage[DirectoryConfigT]) -> None:
        config = storage.config
        mount_point = config.mount_point
        if mount_point is not None and not probe.is_mounted(mount_point):
            reason = "directory is expected to be a mount point but is not mounted:"
            raise _unable(storage, f"{reason} '{mount_point}'")
        if config.creates_base_path:
            try:
                os.makedirs(config.path, exist_ok=True)
            except FileExistsError:
                pass  # something that is no directory: the check below says so
            except OSError as err:
                raise _unable(storage, f"mkdir {err.filename}: {err.strerror}") from None
        if not os.path.isdir(config.path):
            raise _unable(storage, f"directory '{config.path}' does not exist or is unreachable")
        if config.creates_subdirs:
            for vtype in sorted(SUBDIRS):
                # backups of containers go to the dump directory even where backup is not allowed
                if vtype in config.content or (vtype == "backup" and "rootdir" in config.content):
                    self._create_subdir(storage, vtype)
        self._check_distinct(storage)

    def _create_subdir(self, storage: Storage[DirectoryConfigT], vtype: str) -> None:
        subdir = self.subdir(storage, vtype)
        try:
            os.makedirs(subdir, exist_ok=True)
        except OSError as err:
            text = (
                f"failed to create content directory '{subdir}' for content '{vtype}'"
                f" - {err.strerror}"
            )
            if err.errno in (errno.EACCES, errno.EROFS):
                text += " - ensure that you have read and write access to your storage!"
            raise StorageError(text) from None

    def _check_distinct(self, storage: Storage[DirectoryConfigT]) -> None:
        seen = set()
        for vtype in sorted(storage.config.content & SUBDIRS.keys()):
            subdir = os.path.realpath(self.subdir(storage, vtype))
            if subdir in seen:
                what = f"uses directory {subdir} for multiple content types"
                raise StorageError(f"storage '{storage.storeid}' {what}")
            seen.add(subdir)

    def status(self, storage: Storage[DirectoryConfigT]) -> Status | None:
        """Capacity of the file system the directory is in; None when it isn't there."""
        config = storage.config
        mount_point = config.mount_point

        def usage() -> os.statvfs_result | None:
            if mount_point is not None and not probe.is_mounted(mount_point):
                return None
            return os.statvfs(config.path)

        try:
            fs = probe.ask(config.path, usage)
        except (probe.Unreachable, OSError):
            return None
        if fs is None or fs.f_blocks == 0:
            return None
        return Status.of(fs)

    def activate_volume(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        snapname: str | None = None,
        hints: Hints | None = None,
    ) -> None:
        """A file needs no activation; a missing one is an error.  No hint changes anything here."""
        if not os.path.exists(self.path(storage, volname, snapname)):
            raise StorageError(f"volume '{storage.volid(volname)}' does not exist")

    def map_volume(
        self,
        storage: Storage[DirectoryConfigT],
        volname: str,
        snapname: str | None = None,
        hints: Hints | None = None,
    ) -> str | None:
        """The file itself."""
        return self.path(storage, volname, snapname)


def _unable(storage: Storage[DirectoryConfigT], reason: str) -> StorageError:
    return StorageError(f"unable to activate storage '{storage.storeid}' - {reason}")
