# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""qemu-img: making images, and what an image file says about itself.

Options are those PVE passes, so that images of both are alike.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, Final

from ..errors import StorageError
from ..model import VolumeSize
from ..storage import Storage

QEMU_IMG: Final = "/usr/bin/qemu-img"
_FORMATS: Final = ("raw", "qcow", "qcow2", "qed", "vmdk", "cloop")
_OVERLAY_OPTIONS: Final = ("extended_l2=on", "cluster_size=128k")


def info(
    storage: Storage[Any],
    path: str,
    format: str,
    *,
    timeout: float | None = None,
    chain: bool = False,
) -> Any:
    """What ``qemu-img info`` says, decoded; with *chain* a list that begins with *path* itself.

    ``-U``: a running guest holds the image's lock; reading its header needs none.
    """
    command = [QEMU_IMG, "info", "-U", "--output=json", path, "-f", format]
    done = storage.run([*command, "--backing-chain"] if chain else command, timeout=timeout)
    return decode(done.stdout, path)


def decode(output: bytes, path: str) -> Any:
    """The JSON that qemu-img has printed about *path*."""
    try:
        return json.loads(output)
    except ValueError as err:
        raise StorageError(f"could not parse qemu-img info output for '{path}' - {err}") from None


def size_info(
    storage: Storage[Any], path: str, format: str, timeout: float | None = None
) -> VolumeSize:
    """Size, format, allocated size, parent and change time of an image; StorageError if missing.

    Plain raw files are answered from their inode: the same numbers without a process.
    """
    try:
        found = os.stat(path)
    except OSError:
        hint = " - dangling symlink?" if os.path.islink(path) else ""
        raise StorageError(f"failed to stat '{path}'{hint}") from None
    ctime = int(found.st_ctime)
    if stat.S_ISDIR(found.st_mode) != (format == "subvol"):
        which = "a" if format != "subvol" else "not a"
        raise StorageError(f"expected format '{format}', but '{path}' is {which} directory")
    if format == "subvol":
        return VolumeSize(0, "subvol", 0, None, ctime)
    if format not in _FORMATS:
        storage.warn(f"'{path}': falling back to 'raw' from unknown format '{format}'")
        format = "raw"
    if format == "raw" and stat.S_ISREG(found.st_mode):
        sectors = -(-found.st_size // 512)  # QEMU sees whole sectors
        return VolumeSize(sectors * 512, "raw", found.st_blocks * 512, None, ctime)
    answer = info(storage, path, format, timeout=timeout)
    parent = answer.get("backing-filename")
    if parent is not None and re.search(r"\s", parent):
        storage.warn(f"strange parent name path '{parent}' found")
        parent = None
    return VolumeSize(
        int(answer["virtual-size"]), answer["format"], int(answer["actual-size"]), parent, ctime
    )


def create(
    storage: Storage[Any], path: str, format: str, size: int, preallocation: str | None
) -> None:
    """Make an image of *size* bytes, which are not always whole KiB (T-05)."""
    options = ["-o", f"preallocation={preallocation}"] if preallocation else []
    amount = str(size) if size % 1024 else f"{size // 1024}K"
    _create(storage, [*options, "-f", format, path, amount])


def create_overlay(
    storage: Storage[Any],
    path: str,
    backing: str,
    backing_format: str,
    preallocation: str | None,
) -> None:
    """Make a qcow2 image on top of *backing*, a path relative to the new image's directory."""
    options = list(_OVERLAY_OPTIONS)
    if preallocation:
        options.append(f"preallocation={preallocation}")
    args = ["-F", backing_format, "-b", backing, "-f", "qcow2", path, "-o", ",".join(options)]
    _create(storage, args, cwd=os.path.dirname(path))


def _create(storage: Storage[Any], args: list[str], cwd: str | None = None) -> None:
    try:
        storage.run([QEMU_IMG, "create", *args], cwd=cwd)
    except StorageError as err:
        raise type(err)(f"unable to create image: {err}") from None


def resize(
    storage: Storage[Any], path: str, format: str, size: int, preallocation: str | None
) -> None:
    """Grow an image to *size* bytes; qemu-img refuses to shrink one."""
    options = [f"--preallocation={preallocation}"] if preallocation else []
    storage.run([QEMU_IMG, "resize", *options, "-f", format, path, str(size)], timeout=10)


def check_complete(storage: Storage[Any], path: str, format: str) -> None:
    """StorageError when image *path* lacks data its own tables speak of: a stream that was cut.

    The backing file is left out of it, it may follow later.
    """
    image: dict[str, object] = {"driver": format, "file": {"driver": "file", "filename": path}}
    if format == "qcow2":
        image["backing"] = None
    done = storage.run([QEMU_IMG, "check", f"json:{json.dumps(image)}"], check=False)
    if done.status in (1, 2):  # 3: leaked clusters, 63: the format has no check
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StorageError(f"incomplete {format} image: {lines[-1] if lines else 'check failed'}")
