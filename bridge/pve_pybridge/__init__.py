# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Proxmox VE storage plugins in Python: everything a plugin imports.

The SDK names come from here; the modules behind them are the bridge's own business.  The two large
bases are imported when a plugin asks for them: who needs neither starts sooner and needs less
memory (with asyncio left out, too: 23 MiB of 30).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .config import Secret, StorageConfig, builtin, option, secret
from .errors import (
    Cancelled,
    DeadlineExceeded,
    NotSupported,
    ParameterError,
    RollbackBlocked,
    StorageError,
)
from .model import (
    Bytes,
    Cleanup,
    Hints,
    Host,
    PruneEntry,
    Seconds,
    SnapshotInfo,
    Status,
    UnixTime,
    Volume,
    VolumeName,
    VolumeSize,
)
from .names import BLOCK_NAMES, DIRECTORY_NAMES, NamePattern, Rule
from .plugin import StoragePlugin
from .storage import Storage
from .version import __version__

if TYPE_CHECKING:
    from .block import Attachment, BlockPlugin, BlockVolume, VolumeExists
    from .directory.config import DirectoryConfig
    from .directory.plugin import DirectoryPlugin

__all__ = [
    "BLOCK_NAMES",
    "DIRECTORY_NAMES",
    "Attachment",
    "BlockPlugin",
    "BlockVolume",
    "Bytes",
    "Cancelled",
    "Cleanup",
    "DeadlineExceeded",
    "DirectoryConfig",
    "DirectoryPlugin",
    "Hints",
    "Host",
    "NamePattern",
    "NotSupported",
    "ParameterError",
    "PruneEntry",
    "RollbackBlocked",
    "Rule",
    "Seconds",
    "Secret",
    "SnapshotInfo",
    "Status",
    "Storage",
    "StorageConfig",
    "StorageError",
    "StoragePlugin",
    "UnixTime",
    "Volume",
    "VolumeExists",
    "VolumeName",
    "VolumeSize",
    "__version__",
    "builtin",
    "option",
    "secret",
]

_BASES = {
    **dict.fromkeys(("Attachment", "BlockPlugin", "BlockVolume", "VolumeExists"), "block"),
    "DirectoryConfig": "directory.config",
    "DirectoryPlugin": "directory.plugin",
}


def __getattr__(name: str) -> object:
    """The names of the large bases."""
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_BASES[name]}"), name)
