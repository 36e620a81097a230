# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyloop``: image files attached as kernel loop devices.

Each volume is one file in a directory; activation attaches it with losetup and puts a symbolic link
with a stable name in front of the device.  Windows guests get direct I/O, which shows in
``/sys/block/loopN/loop/dio``.  Clones and snapshots are reflinks where the file system has them;
where not, clones are copies and a snapshot needs a volume that isn't attached.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pve_pybridge import (
    Attachment,
    BlockPlugin,
    BlockVolume,
    SnapshotInfo,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    newfile,
    option,
)
from pve_pybridge.block import name_taken
from pve_pybridge.directory.files import failing_as
from pve_pybridge.paths import run_dir

FICLONE = 0x40049409
NAME = re.compile(r"(?:vm|base)-[0-9]+-[^/\s@]+")


@dataclass(frozen=True, kw_only=True)
class LoopConfig(StorageConfig):
    """Where the image files are, and how they look to guests."""

    folder: str = option("Directory for the image files", fixed=True, format="pve-storage-path")
    sector_size: Literal["512", "4096"] = option(
        "Logical sector size of the devices", default="512", fixed=True
    )


class PyLoop(BlockPlugin[LoopConfig]):
    """Files as block devices."""

    type = "pyloop"
    allocation_unit = 4096
    reads_zero = True
    clones_snapshots = True
    hint_options = {"guest-is-windows": {"direct-io": True}}

    def check_connection(self, storage: Storage[LoopConfig]) -> bool:
        """The directory is there."""
        return os.path.isdir(storage.config.folder)

    def activate_storage(self, storage: Storage[LoopConfig]) -> None:
        """Remove what a killed server had not finished."""
        with failing_as(f"can't clean up '{storage.config.folder}'"):
            newfile.remove_leftovers(storage.config.folder)
            if _links(storage).is_dir():
                newfile.remove_leftovers(str(_links(storage)))

    def status(self, storage: Storage[LoopConfig]) -> Status:
        """Space of the file system that holds the files."""
        with failing_as(f"can't read '{storage.config.folder}'"):
            return Status.of(os.statvfs(storage.config.folder))

    # --- files ---------------------------------------------------------------------------------

    def volumes(self, storage: Storage[LoopConfig]) -> list[BlockVolume]:
        """The files with PVE's names."""
        found = []
        with (
            failing_as(f"can't list '{storage.config.folder}'"),
            os.scandir(storage.config.folder) as it,
        ):
            for entry in it:
                name = entry.name.removesuffix(".raw")
                if name == entry.name or not NAME.fullmatch(name) or not entry.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError):  # freed meanwhile
                    stat = entry.stat()
                    used, ctime = stat.st_blocks * 512, int(stat.st_ctime)
                    found.append(BlockVolume(name, stat.st_size, used=used, ctime=ctime))
        return found

    def size(self, storage: Storage[LoopConfig], name: str) -> int | None:
        """Size of one file."""
        try:
            return os.stat(_file(storage, name)).st_size
        except FileNotFoundError:
            return None

    def create(self, storage: Storage[LoopConfig], name: str, size: int) -> None:
        """A sparse file."""
        with newfile.unnamed(storage.config.folder) as fd, failing_as(f"can't create '{name}'"):
            os.truncate(fd, size)
            _give_name(fd, storage, name)

    def delete(self, storage: Storage[LoopConfig], name: str) -> None:
        """Remove the file."""
        with failing_as(f"can't remove '{name}'"):
            os.unlink(_file(storage, name))

    def grow(self, storage: Storage[LoopConfig], name: str, size: int, device: str | None) -> None:
        """Lengthen the file and have the kernel look again."""
        with failing_as(f"can't resize '{name}'"):
            os.truncate(_file(storage, name), size)
        if device:
            storage.run(["losetup", "--set-capacity", device])

    def rename(self, storage: Storage[LoopConfig], name: str, new_name: str) -> None:
        """Rename the file, never over another one; with snapshots that would be several steps."""
        if self.snapshots(storage, name):
            raise StorageError(f"volume '{name}' has snapshots, it can't be renamed")
        with name_taken(new_name):
            newfile.rename(_file(storage, name), _file(storage, new_name))

    # --- loop devices --------------------------------------------------------------------------

    def device(self, storage: Storage[LoopConfig], name: str, snapname: str | None) -> str:
        """The link in front of the loop device."""
        return str(_links(storage) / _label(name, snapname))

    def attached(
        self, storage: Storage[LoopConfig], name: str, snapname: str | None
    ) -> Attachment | None:
        """What the kernel says of the file; a server killed in ``attach`` left out the link."""
        found = _loops(storage, _file(storage, name, snapname))
        if not found:
            return None
        link = Path(self.device(storage, name, snapname))
        if not link.exists() or os.readlink(link) != found[0]["name"]:
            _point(link, found[0]["name"])
        options = {"direct-io": True} if found[0]["dio"] else {}
        return Attachment(found[0]["name"], options)

    def attach(
        self,
        storage: Storage[LoopConfig],
        name: str,
        snapname: str | None,
        options: Mapping[str, object],
    ) -> None:
        """losetup, then the link; a snapshot is read-only."""
        file = _file(storage, name, snapname)
        if not os.path.exists(file):
            raise StorageError(f"volume '{storage.volid(_label(name, snapname))}' does not exist")
        command = ["losetup", "--find", "--show", "--nooverlap"]
        command += [f"--sector-size={storage.config.sector_size}"]
        command += ["--direct-io=on"] if options.get("direct-io") else []
        command += ["--read-only"] if snapname else []
        loop = storage.run([*command, file]).text.strip()
        if options.get("direct-io") and not self._has_direct_io(loop):
            storage.run(["losetup", "--detach", loop])
            raise StorageError(f"the file system of '{file}' has no direct I/O")
        _point(Path(self.device(storage, name, snapname)), loop)

    def detach(self, storage: Storage[LoopConfig], name: str, snapname: str | None) -> None:
        """Take the device away unless something holds it open."""
        link = Path(self.device(storage, name, snapname))
        for loop in _loops(storage, _file(storage, name, snapname)):
            _refuse_if_busy(loop["name"], name)
            storage.run(["losetup", "--detach", loop["name"]])
            _wait_until_gone(storage, loop["name"], _file(storage, name, snapname))
        link.unlink(missing_ok=True)

    def _has_direct_io(self, loop: str) -> bool:
        return Path(f"/sys/block/{Path(loop).name}/loop/dio").read_text().strip() == "1"

    # --- clones and snapshots ------------------------------------------------------------------

    def clone(
        self, storage: Storage[LoopConfig], name: str, snapname: str | None, new_name: str
    ) -> bool:
        """A reflink or a copy: whole in either case, so the name doesn't mention the base."""
        with self._copied(storage, _file(storage, name, snapname)) as copy:
            _give_name(copy, storage, new_name)
        return False

    def snapshot(self, storage: Storage[LoopConfig], name: str, snapname: str) -> None:
        """A reflink; a copy takes time, in which an attached volume would change (T-50)."""
        now = self.attached(storage, name, None)
        if now is not None:
            storage.run(["blockdev", "--flushbufs", now.device])
        refused = (
            f"'{name}' is in use, and the file system of '{storage.config.folder}' can't"
            " snapshot such a file (it has no reflinks)"
        )
        with self._copied(storage, _file(storage, name), refused if now else None) as copy:
            _give_name(copy, storage, name, snapname)

    def snapshot_delete(self, storage: Storage[LoopConfig], name: str, snapname: str) -> None:
        """Remove the snapshot's file."""
        with failing_as(f"can't remove snapshot '{snapname}' of '{name}'"):
            os.unlink(_file(storage, name, snapname))

    def snapshot_rollback(self, storage: Storage[LoopConfig], name: str, snapname: str) -> None:
        """Copy the snapshot, then put the copy in the volume's place."""
        with self._copied(storage, _file(storage, name, snapname)) as copy:
            newfile.replace(copy, _file(storage, name))

    def snapshots(self, storage: Storage[LoopConfig], name: str) -> dict[str, SnapshotInfo]:
        """The snapshots' files, oldest first."""
        found = []
        for path in Path(storage.config.folder).glob(f"{name}@*.raw"):
            stat = path.stat()
            info = SnapshotInfo(id=str(stat.st_ino), timestamp=int(stat.st_mtime))
            found.append((stat.st_mtime_ns, path.stem.split("@", 1)[1], info))
        return {snapname: info for _, snapname, info in sorted(found, key=lambda item: item[0])}

    @contextlib.contextmanager
    def _copied(
        self, storage: Storage[LoopConfig], source: str, refused: str | None = None
    ) -> Iterator[int]:
        """A reflink of *source*, still without a name; else a copy, or what *refused* says."""
        with newfile.unnamed(storage.config.folder) as copy, failing_as(f"can't copy '{source}'"):
            if not _reflink(source, copy):
                if refused:
                    raise StorageError(refused)
                storage.run(["cp", "--sparse=always", source, newfile.path_of(copy)])
            yield copy


# --- helpers -----------------------------------------------------------------------------------


def _label(name: str, snapname: str | None) -> str:
    return f"{name}@{snapname}" if snapname else name


def _file(storage: Storage[LoopConfig], name: str, snapname: str | None = None) -> str:
    return f"{storage.config.folder}/{_label(name, snapname)}.raw"


def _give_name(
    fd: int, storage: Storage[LoopConfig], name: str, snapname: str | None = None
) -> None:
    with name_taken(_label(name, snapname)):
        newfile.give_name(fd, _file(storage, name, snapname))


def _reflink(source: str, target: int) -> bool:
    """Share all blocks of *source*; False where the file system can't."""
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(target, FICLONE, fd)
    except OSError as err:
        if err.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            raise
        return False
    finally:
        os.close(fd)
    return True


def _loops(storage: Storage[LoopConfig], file: str) -> list[dict[str, Any]]:
    """The loop devices of a file, as losetup lists them."""
    done = storage.run(["losetup", "--json", "--list", "--associated", file], check=False)
    if not done.stdout.strip():
        return []
    found: list[dict[str, Any]] = json.loads(done.stdout)["loopdevices"]
    return found


def _refuse_if_busy(loop: str, name: str) -> None:
    """losetup would only mark a busy device for later; the kernel says who holds it."""
    try:
        os.close(os.open(loop, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as err:
        if err.errno == errno.EBUSY:
            raise StorageError(f"volume '{name}' is in use ({loop})") from None


def _wait_until_gone(storage: Storage[LoopConfig], loop: str, file: str) -> None:
    """A device somebody still had open only goes away with them: then it is in use."""
    ends = time.monotonic() + 2
    while any(one["name"] == loop for one in _loops(storage, file)):
        if time.monotonic() > ends:
            raise StorageError(f"{loop} is still in use, the kernel detaches it when it is closed")
        storage.sleep(0.05)


def _links(storage: Storage[LoopConfig]) -> Path:
    """Directory of the storage's links."""
    return run_dir().with_name("pve-pybridge-loop") / storage.storeid


def _point(link: Path, loop: str) -> None:
    """Have *link* name the device, in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = newfile.hidden_name(str(link.parent))
    os.symlink(loop, temporary)
    os.replace(temporary, link)
