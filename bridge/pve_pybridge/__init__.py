# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Proxmox VE storage plugins in Python: everything a plugin imports.

The SDK names come from here; the modules behind them are the bridge's own business.
"""

from .block import Attachment, BlockPlugin, BlockVolume, VolumeExists
from .config import Secret, StorageConfig, builtin, option, secret
from .directory import DirectoryConfig, DirectoryPlugin
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
