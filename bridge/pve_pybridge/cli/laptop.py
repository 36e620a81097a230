# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Storages without PVE: ``serve --storage`` makes them, ``call`` and ``trace`` find them.

On a node storages belong to PVE's storage.cfg; on a developer's machine they are in a directory
beside the sockets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .. import manifest, offnode, secrets
from ..errors import StorageError
from ..offnode import Files
from ..paths import laptop_dir, run_dir
from ..plugin import StoragePlugin

_ETC_PVE: Final = "PVE_PYBRIDGE_ETC_PVE"


def options(words: Sequence[str]) -> dict[str, str]:
    """``--config`` words; StorageError when one has no value."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise StorageError(f"--config {word}: write OPTION=VALUE")
        found[name] = value
    return found


def files() -> Files:
    """The directory beside the sockets."""
    return Files(laptop_dir(), run_dir())


def make_storage(storeid: str, plugin: type[StoragePlugin[Any]], words: Sequence[str]) -> None:
    """Write a storage's section, manifest and secrets, and have this process read them there."""
    if Path("/etc/pve/storage.cfg").exists() and _ETC_PVE not in os.environ:
        raise StorageError(f"--storage {storeid}: this is a PVE node, add it with 'pvesm add'")
    section, given = offnode.section_of(plugin, options(words))
    there = files()
    os.environ.setdefault(_ETC_PVE, str(there.etc))
    there.make()
    there.enable(manifest.build(plugin))
    there.add(storeid, section)
    secrets.apply(storeid, given)
