# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Who else may change a file that root acts upon.  The shim judges manifests by the same rule."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def flaw(path: Path) -> str | None:
    """Why *path* is not to be trusted, None when only root (or we) can write it; OSError."""
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        return f"it must belong to root, not to user {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner may write it"
    return None


def path_flaw(path: Path) -> str | None:
    """The same for the file and all directories above it, where it could be replaced."""
    try:
        if found := flaw(path):
            return found
        for directory in path.resolve().parents:
            sticky = directory.stat().st_mode & stat.S_ISVTX  # there only owners replace
            if not sticky and (found := flaw(directory)):
                return f"{directory} above it: {found}"
    except OSError as err:
        return err.strerror
    return None
