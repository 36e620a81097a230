# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Write a file in one step: whoever reads it meanwhile, and a power cut, finds the old or the new.

For everything the bridge keeps: manifests, secrets, small files of plugins.  The new text goes
beside its target as a hidden file, so that nobody who lists the directory takes it for an entry;
``newfile.remove_leftovers`` removes what a killed writer has left.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import newfile


def write(target: Path, data: str | bytes, mode: int = 0o600) -> None:
    """Put *data* at *target* with exactly *mode*, whatever the umask; OSError when it can't be."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    temporary = Path(newfile.hidden_name(str(target.parent)))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:
            # Only where needed: the cluster file system knows no chmod, but has its modes right.
            if os.fstat(descriptor).st_mode & 0o7777 != mode:
                os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
