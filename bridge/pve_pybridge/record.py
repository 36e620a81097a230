# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Since when what PVE processes load at their start is as it is: the shim and the manifests.

A file's ctime says when it was written (its mtime comes from the package), but an upgrade writes
the same text again, and the processes that have it are as good as new.  So the checksum of all of
it is kept in ``/var/lib/pve-pybridge/pve``: while it fits, nothing has changed since that file was
written.  The package's scripts keep the same file, to fire PVE's trigger only when that is due.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import atomic
from .errors import StorageError
from .installed import files
from .paths import manifests_dir, perl_dir, state_dir


def loaded_since() -> tuple[float, Path] | None:
    """Processes that started before do not have what there is now; and the newest file of it.

    None when there is neither shim nor manifest.
    """
    found = [path for path in (*_shim(), *files(), manifests_dir()) if path.exists()]
    if not found:
        return None
    newest = max(found, key=lambda path: path.stat().st_ctime)
    changed = newest.stat().st_ctime
    kept = _file()
    try:
        if kept.read_text() == _checksum():
            changed = min(changed, kept.stat().st_mtime)
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    return changed, newest


def update() -> None:
    """Remember what there is now."""
    kept = _file()
    try:
        text = _checksum()
        if not kept.exists() or kept.read_text(errors="replace") != text:
            kept.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            atomic.write(kept, text, 0o644)
    except OSError as err:
        raise StorageError(f"can't write {kept}: {err.strerror}") from None


def _file() -> Path:
    return state_dir() / "pve"


def _shim() -> list[Path]:
    here = perl_dir() / "PVE/Storage"
    return [here / "Custom/PyBridge.pm", *sorted((here / "PyBridge").glob("*.pm"))]


def _checksum() -> str:
    """As sha256sum prints it of the shim's files and of each type's name and manifest."""
    total = hashlib.sha256()
    if os.path.lexists(_shim()[0]):
        for file in _shim():
            total.update(file.read_bytes())
    for file in files():
        total.update(f"{file.stem}\n".encode() + file.read_bytes())
    return f"{total.hexdigest()}  -\n"
