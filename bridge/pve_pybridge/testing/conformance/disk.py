# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The data of a volume, reached as guests and containers do: by its path, or by QEMU.

A raw volume with a path is read and written directly; everything else through qemu-io, by what the
plugin tells QEMU to open.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from .outcome import Failed, NotApplicable
from .subject import STOREID, Subject

MIB: Final = 1 << 20
QEMU_SECONDS: Final = 20.0
WAITING: Final = ("open-timeout", "reconnect-delay")
"""Options by which QEMU waits for a server; the suite would rather know at once."""


class Disk(Protocol):
    """What the statements do with a volume's data."""

    def fill(self, byte: int, offset: int = 0, size: int = MIB) -> None:
        """Write *size* times *byte*, down to the medium."""

    def holds(self, byte: int, offset: int = 0, size: int = MIB) -> bool:
        """Whether all of it is *byte*."""

    def size(self) -> int:
        """Bytes a guest would see."""


class Local:
    """A file or block device."""

    def __init__(self, path: str):
        self.path = path

    def _open(self, flags: int) -> int:
        try:
            return os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as err:
            raise Failed(f"open '{self.path}': {err.strerror}") from None

    def fill(self, byte: int, offset: int = 0, size: int = MIB) -> None:
        """See ``Disk``."""
        fd = self._open(os.O_RDWR)
        try:
            done = os.pwrite(fd, bytes([byte]) * size, offset)
            os.fsync(fd)
        except OSError as err:
            raise Failed(f"writing '{self.path}': {err.strerror}") from None
        finally:
            os.close(fd)
        if done != size:
            raise Failed(f"writing '{self.path}': only {done} of {size} bytes fit")

    def holds(self, byte: int, offset: int = 0, size: int = MIB) -> bool:
        """See ``Disk``."""
        fd = self._open(os.O_RDONLY)
        try:
            return os.pread(fd, size, offset) == bytes([byte]) * size
        except OSError as err:
            raise Failed(f"reading '{self.path}': {err.strerror}") from None
        finally:
            os.close(fd)

    def size(self) -> int:
        """See ``Disk``."""
        fd = self._open(os.O_RDONLY)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)


class Qemu:
    """Whatever QEMU can open."""

    def __init__(self, node: dict[str, Any]):
        self.image = "json:" + json.dumps(node)

    def _io(self, command: str, *options: str) -> tuple[bool, str]:
        done = _tool("qemu-io", *options, "-c", command, self.image)
        said = (done.stdout + done.stderr).strip()
        return done.returncode == 0 and "failed" not in said and "error" not in said.lower(), said

    def fill(self, byte: int, offset: int = 0, size: int = MIB) -> None:
        """See ``Disk``."""
        good, said = self._io(f"write -P {byte} {offset} {size}")
        if not good:
            raise Failed(f"QEMU can't write to {self.image}: {said}")

    def holds(self, byte: int, offset: int = 0, size: int = MIB) -> bool:
        """See ``Disk``."""
        good, said = self._io(f"read -P {byte} {offset} {size}", "-r")
        if not good and "Pattern verification failed" not in said:
            raise Failed(f"QEMU can't read {self.image}: {said}")
        return good

    def size(self) -> int:
        """See ``Disk``."""
        done = _tool("qemu-img", "info", "-U", "--output=json", self.image)
        if done.returncode != 0:
            raise Failed(f"QEMU can't open {self.image}: {done.stderr.strip()}")
        return int(json.loads(done.stdout)["virtual-size"])


def _tool(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(name) is None:
        raise NotApplicable(
            f"the volume's data can be reached by QEMU only, and there is no {name}"
        )
    try:
        return subprocess.run(
            [name, *args],
            capture_output=True,
            text=True,
            timeout=QEMU_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} {' '.join(args)} hung for {QEMU_SECONDS:g} s") from None


def reach(
    subject: Subject, volid: str, snapname: str | None = None, storeid: str = STOREID
) -> Disk:
    """The data of an active volume or snapshot."""
    path = str(subject.ask("path", volid, snapname))
    format_ = str(subject.parse(volid)[6] or "raw")
    if format_ == "subvol":
        raise NotApplicable("volumes of this storage are directories")
    if path.startswith("/") and format_ == "raw":
        if not os.path.exists(path):
            subject.fail(f"'{path}' does not exist after activation")
        return Local(path)
    if snapname and format_ == "qcow2" and path == str(subject.ask("path", volid)):
        return _internal(subject, path, snapname)
    return Qemu({"driver": format_, "file": blockdev(subject, volid, path, snapname, storeid)})


def blockdev(
    subject: Subject, volid: str, path: str, snapname: str | None, storeid: str = STOREID
) -> dict[str, Any]:
    """What QEMU is told to open."""
    if path.startswith("/"):
        if not os.path.exists(path):
            subject.fail(f"'{path}' does not exist after activation")
        return {"driver": "host_device" if is_device(path) else "file", "filename": path}
    if subject.settings.apiver < 12:
        raise NotApplicable(f"'{path}' is no file, and this host has no qemu_blockdev_options")
    options = {"hints": {}, **({"snapshot-name": snapname} if snapname else {})}
    found: dict[str, Any] = subject.method(
        "qemu_blockdev_options",
        storeid=storeid,
        volname=volid.partition(":")[2],
        machine_version="10.0+pve0",
        options=options,
    )
    return {key: value for key, value in found.items() if key not in WAITING}


def _internal(subject: Subject, path: str, snapname: str) -> Local:
    """A snapshot inside a qcow2 file, copied out of it."""
    copy = Path(subject.node.base) / f"copy-{snapname}"
    done = _tool(
        *("qemu-img", "convert", "-l", f"snapshot.name={snapname}"),
        *("-f", "qcow2", "-O", "raw", path, str(copy)),
    )
    if done.returncode != 0:
        subject.fail(f"qemu-img can't read snapshot '{snapname}': {done.stderr.strip()}")
    return Local(str(copy))


def is_device(path: str) -> bool:
    """Whether a path leads to a block device."""
    with contextlib.suppress(OSError):
        return stat.S_ISBLK(os.stat(path).st_mode)
    return False


@contextlib.contextmanager
def opened(
    subject: Subject, volid: str, snapname: str | None = None, storeid: str = STOREID
) -> Iterator[Disk]:
    """The data of a volume, activated for as long as it takes."""
    subject.ask("activate_volumes", [volid], snapname)
    try:
        yield reach(subject, volid, snapname, storeid)
    finally:
        subject.attempt("deactivate_volumes", [volid], snapname)


def is_there(subject: Subject, volid: str, snapname: str | None = None) -> bool:
    """Whether something can be opened where the volume would be when it is active."""
    path = str(subject.ask("path", volid, snapname))
    if path.startswith("/"):
        return os.path.exists(path)
    try:
        Qemu({"driver": "raw", "file": blockdev(subject, volid, path, snapname)}).size()
    except Failed:
        return False
    return True
