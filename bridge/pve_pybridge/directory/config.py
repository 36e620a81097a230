# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The options of a directory storage, under PVE's own property names.

Everything that is a fact about the configuration alone lives here: the path check of a new storage
and what ``is_mountpoint`` means.  All layers of the plugin read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeVar

from ..config import StorageConfig, builtin
from ..errors import ParameterError, StorageError

_LEGAL_PATH: Final = re.compile(r"/[-/a-zA-Z0-9_.@]+")
_YES: Final = frozenset({"1", "on", "yes", "true"})
_NO: Final = frozenset({"0", "off", "no", "false"})
_PREALLOCATION: Final = {
    "raw": ("off", "falloc", "full"),
    "qcow2": ("off", "metadata", "falloc", "full"),
}


@dataclass(frozen=True, kw_only=True)
class DirectoryConfig(StorageConfig):
    """What an administrator can say about a directory storage."""

    path: str = builtin(fixed=True)
    content_dirs: dict[str, str] | None = builtin(default=None)
    format: str | None = builtin(default=None)
    preallocation: str | None = builtin(default=None)
    mkdir: bool | None = builtin(default=None)
    create_base_path: bool | None = builtin(default=None)
    create_subdirs: bool | None = builtin(default=None)
    is_mountpoint: str | None = builtin("is_mountpoint", default=None)
    snapshot_as_volume_chain: bool = builtin(default=False, fixed=True)

    @property
    def mount_point(self) -> str | None:
        """The directory that must be a mount point, or None when nothing is asked for."""
        answer = (self.is_mountpoint or "").lower()
        if self.is_mountpoint is None or answer in _NO:
            return None
        return self.path if answer in _YES else self.is_mountpoint

    @property
    def creates_base_path(self) -> bool:
        """Whether a missing base directory is created; the deprecated ``mkdir`` decides last."""
        if self.create_base_path is not None:
            return self.create_base_path
        return self.mkdir is not False

    @property
    def creates_subdirs(self) -> bool:
        """Whether missing content directories are created."""
        return self.create_subdirs is not False and self.mkdir is not False

    def preallocation_for(self, format: str) -> str | None:
        """The preallocation mode for a new image, None for formats that have no such thing."""
        if format not in _PREALLOCATION:
            return None
        mode = self.preallocation or ("metadata" if format == "qcow2" else "off")
        if format == "raw" and mode == "metadata":
            mode = "off"
        if mode not in _PREALLOCATION[format]:
            raise StorageError(f"preallocation mode '{mode}' not supported by format '{format}'")
        return mode


DirectoryConfigT = TypeVar("DirectoryConfigT", bound=DirectoryConfig)


def checked_path(path: str) -> str:
    """*path* as it is written to storage.cfg; ParameterError when a storage can't live there."""
    if not _LEGAL_PATH.fullmatch(path):
        raise ParameterError({"path": f"illegal path for directory storage: {path}"})
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)
