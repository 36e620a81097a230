# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pynbd``: qcow2 files served over NBD by a qemu-storage-daemon, without any kernel driver.

It is a ``BlockPlugin``: to PVE a volume is raw, with a name and a size, and has to be attached;
that it is a qcow2 file inside is the plugin's own business, and so are its clones and snapshots.
A ``DirectoryPlugin`` would show the files, and PVE would then open them itself.

qemu-storage-daemon rather than nbdkit: it changes exports while others are in use, takes snapshots
of what a guest writes to, maps volumes as files through FUSE, and PVE installs it anyway.

Each storage has one daemon, while anything of it is active (``qemu.daemon``).  An active volume
is exported under its name on the storage's NBD socket; what has to be a file (containers, TPM
state) is mapped through FUSE instead.  A guest survives the plugin server and, waiting, a crash of
the daemon, with all it has written (``write-cache`` trades that for speed); users of a mapped file
don't.  A snapshot has a qemu-nbd of its own.  qcow2 has one writer: the storage is never shared.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pve_pybridge import (
    Attachment,
    BlockPlugin,
    BlockVolume,
    Hints,
    SnapshotInfo,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    VolumeExists,
    newfile,
    option,
)
from pve_pybridge.alive import is_alive, me
from pve_pybridge.block import name_taken
from pve_pybridge.directory import qemu_img
from pve_pybridge.directory.files import failing_as
from pve_pybridge.qemu import qcow2
from pve_pybridge.qemu.daemon import StorageDaemon, clients
from pve_pybridge.qemu.snapshot_view import SnapshotView

RUN = Path("/run/pve-pybridge-nbd")
NAME = re.compile(r"(?:vm|base)-[0-9]+-[^/\s@]+")
RECONNECT_SECONDS = 300
"""How long a guest waits for a daemon that was gone; pvestatd has it back within 10 s (T-19)."""
RESIZE_SECONDS = 10
"""How long a resize waits for the guest to connect again."""


@dataclass(frozen=True, kw_only=True)
class NbdConfig(StorageConfig):
    """Where the image files are."""

    folder: str = option("Directory for the image files", fixed=True, format="pve-storage-path")
    write_cache: bool = option(
        "Faster writes, of which a crash of the storage daemon loses those not flushed yet",
        default=False,
    )


class PyNbd(BlockPlugin[NbdConfig]):
    """qcow2 files as NBD exports."""

    type = "pynbd"
    allocation_unit = 512
    reads_zero = True

    def check_connection(self, storage: Storage[NbdConfig]) -> bool:
        """The directory is there."""
        return os.path.isdir(storage.config.folder)

    def activate_storage(self, storage: Storage[NbdConfig]) -> None:
        """Bring back what a crash took away; costs a connection, and nothing while all is well."""
        if storage.config.shared:
            raise StorageError(f"storage '{storage.storeid}' can't be shared: qcow2 has one writer")
        if not os.path.isdir(storage.config.folder):
            raise StorageError(f"there is no directory '{storage.config.folder}'")
        with self._daemon(storage).session(wait=False):
            pass
        self._remove_unfinished(storage)
        newfile.remove_leftovers(storage.config.folder)

    def status(self, storage: Storage[NbdConfig]) -> Status:
        """Space of the file system that holds the files."""
        with failing_as(f"can't read '{storage.config.folder}'"):
            return Status.of(os.statvfs(storage.config.folder))

    # --- files ---------------------------------------------------------------------------------

    def volumes(self, storage: Storage[NbdConfig]) -> list[BlockVolume]:
        """The images with PVE's names, by their headers."""
        folder = storage.config.folder
        with failing_as(f"can't list '{folder}'"):
            names = [file[:-6] for file in os.listdir(folder) if file.endswith(".qcow2")]
        found = (_volume(storage, name) for name in names if NAME.fullmatch(name))
        return [volume for volume in found if volume]

    def size(self, storage: Storage[NbdConfig], name: str) -> int | None:
        """Size in the image's header, which the daemon keeps up to date."""
        found = qcow2.header(_file(storage, name))
        return found.size if found else None

    def create(self, storage: Storage[NbdConfig], name: str, size: int) -> None:
        """An image that grows with use."""
        self._new_image(storage, name, size)

    def clone(
        self, storage: Storage[NbdConfig], name: str, snapname: str | None, new_name: str
    ) -> bool:
        """An image on top of the base, named relatively so that the directory can move."""
        size = self.size(storage, name)
        if size is None:
            raise StorageError(f"volume '{storage.volid(name)}' does not exist")
        self._new_image(storage, new_name, size, f"{name}.qcow2")
        return True

    def delete(self, storage: Storage[NbdConfig], name: str) -> None:
        """Remove the file."""
        with failing_as(f"can't remove '{name}'"):
            os.unlink(_file(storage, name))
        _unfinished(storage, name).unlink(missing_ok=True)

    def rename(self, storage: Storage[NbdConfig], name: str, new_name: str) -> None:
        """Rename the file, its snapshots are inside."""
        with name_taken(new_name):
            newfile.rename(_file(storage, name), _file(storage, new_name))

    def _new_image(
        self, storage: Storage[NbdConfig], name: str, size: int, backing: str | None = None
    ) -> None:
        """A whole image or none.  An import has yet to fill it, so it gets a note beside it.

        The note names the importer's process: if that dies, activate_storage removes both (C-060).
        """
        if not NAME.fullmatch(name):
            raise StorageError(f"illegal name '{name}'")
        with newfile.unnamed(storage.config.folder) as image:
            qcow2.create(storage, image, size, backing)
            if self.size(storage, name) is not None:  # its import may have a note
                raise VolumeExists(f"volume '{name}' exists already")
            if storage.call.method == "volume_import":
                _unfinished(storage, name).write_text(me())
            with name_taken(name):
                newfile.give_name(image, _file(storage, name))

    def _remove_unfinished(self, storage: Storage[NbdConfig]) -> None:
        for note in Path(storage.config.folder).glob(".importing-*"):
            with contextlib.suppress(FileNotFoundError):
                if not is_alive(note.read_text()):
                    name = note.name.removeprefix(".importing-")
                    storage.warn(f"removing '{name}', whose import was interrupted")
                    self.detach(storage, name, None)
                    self.delete(storage, name)

    # --- the daemon ----------------------------------------------------------------------------

    def device(self, storage: Storage[NbdConfig], name: str, snapname: str | None) -> str:
        """The form of URI that PVE and qemu-img know (contract 4.4)."""
        label = _label(name, snapname)
        return f"nbd:unix:{self._socket(storage, label)}:exportname={label}"

    def attached(
        self, storage: Storage[NbdConfig], name: str, snapname: str | None
    ) -> Attachment | None:
        """What the daemon says; of a snapshot, whether its server runs."""
        label, daemon = _label(name, snapname), self._daemon(storage)
        with daemon.session() as session:
            kind = session.kind(label) if session else None
        if kind == "fuse":
            return Attachment(str(daemon.mountpoint(label)))
        is_there = kind or (snapname and self._view(storage, label).is_served())
        return Attachment(self.device(storage, name, snapname)) if is_there else None

    def attach(
        self,
        storage: Storage[NbdConfig],
        name: str,
        snapname: str | None,
        options: Mapping[str, object],
    ) -> None:
        """Export it over NBD."""
        label = _label(name, snapname)
        if snapname:
            self._view(storage, label).serve()
            return
        with self._daemon(storage).started() as session:
            session.export(label, "nbd")

    def detach(self, storage: Storage[NbdConfig], name: str, snapname: str | None) -> None:
        """Take the export or mapping away unless somebody uses it."""
        label = _label(name, snapname)
        with self._daemon(storage).session() as session:
            if session:
                session.drop(label)
        if snapname:
            self._view(storage, label).stop()

    def map_volume(
        self, storage: Storage[NbdConfig], volname: str, snapname: str | None, hints: Hints
    ) -> str:
        """A file, through FUSE and instead of NBD: two writers can't share an image's size."""
        label = _label(self.parse_volname(volname).name, snapname)
        daemon = self._daemon(storage)
        with daemon.started() as session:
            session.export(label, "fuse")
        return str(daemon.mountpoint(label))

    def qemu_blockdev_options(
        self,
        storage: Storage[NbdConfig],
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> dict[str, object]:
        """The export; or the file, if that is how the volume is active (backup of TPM state)."""
        label = _label(self.parse_volname(volname).name, options.get("snapshot-name"))
        daemon = self._daemon(storage)
        if daemon.wanted().get(label) == "fuse":
            return {"driver": "file", "filename": str(daemon.mountpoint(label))}
        return {
            "driver": "nbd",
            "server": {"type": "unix", "path": self._socket(storage, label)},
            "export": label,
            "reconnect-delay": RECONNECT_SECONDS,
            "open-timeout": 10,
        }

    def grow(self, storage: Storage[NbdConfig], name: str, size: int, device: str | None) -> None:
        """Resize, and see that a running guest's QEMU learns of it.

        An NBD client asks for the size when it connects.  So its connection is cut, and with its
        next request it connects again; only then does the ``block_resize`` that PVE sends next
        succeed.  A guest that asks for nothing in ten seconds keeps the old size, here as well:
        PVE would skip a second attempt if the image had grown.
        """
        if device is None:
            qemu_img.resize(storage, _file(storage, name), "qcow2", size, None)
            return
        daemon = self._daemon(storage)
        can_shrink = not self.snapshots(storage, name)
        before = self.size(storage, name) if can_shrink else None
        result = "was not resized" if can_shrink else "was resized in vain, it has snapshots"
        connected = clients(daemon.nbd_socket)
        with daemon.started() as session:
            if not session.resize(name, size):
                return
        ends = time.monotonic() + RESIZE_SECONDS
        try:
            while clients(daemon.nbd_socket) < connected:
                if time.monotonic() > ends:
                    raise StorageError(
                        f"'{name}' {result}: its guest is idle, and its QEMU notices only with the"
                        " next read or write; resize while the guest uses it"
                    )
                storage.sleep(0.02)
        except BaseException:
            if before is not None:
                with daemon.started() as session:
                    session.resize(name, before)
            raise

    @contextlib.contextmanager
    def _device(
        self, storage: Storage[NbdConfig], name: str, snapname: str | None
    ) -> Iterator[str]:
        """A file for the time of a transfer, beside other exports."""
        label, daemon = _label(name, snapname), self._daemon(storage)
        ours = snapname and not self.attached(storage, name, snapname)
        with daemon.started() as session:
            writable = storage.call.method == "volume_import"
            ident, path = session.map_for_now(label, writable=writable)
        try:
            yield str(path)
        finally:
            with daemon.session() as session:
                if session:
                    session.unmap(label, ident, path)
            if ours:
                self.detach(storage, name, snapname)

    def volume_import(
        self,
        storage: Storage[NbdConfig],
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
        allow_rename: bool = False,
    ) -> str:
        """As for every block storage; then the volume is finished."""
        new = super().volume_import(
            storage, fh, volname, format, snapshot, base_snapshot, with_snapshots, allow_rename
        )
        _unfinished(storage, new).unlink(missing_ok=True)
        return new

    def _daemon(self, storage: Storage[NbdConfig]) -> StorageDaemon:
        describe = functools.partial(self._node, storage)
        cached = storage.config.write_cache
        return StorageDaemon(storage, *_place(storage), describe, writethrough=not cached)

    def _node(self, storage: Storage[NbdConfig], label: str) -> dict[str, object] | None:
        """The block node of a label.  Base images are read-only: their clones have them open."""
        name, _, snapname = label.partition("@")
        if not os.path.exists(_file(storage, name)):
            return None
        if snapname:
            self._view(storage, label).serve()
            server = {"type": "unix", "path": self._socket(storage, label)}
            return {"driver": "nbd", "server": server, "export": label, "read-only": True}
        file = {"driver": "file", "filename": _file(storage, name)}
        is_base = name.startswith("base-")
        return {"driver": "qcow2", "file": file, "discard": "unmap", "read-only": is_base}

    def _view(self, storage: Storage[NbdConfig], label: str) -> SnapshotView:
        image = _file(storage, label.partition("@")[0])
        return SnapshotView(storage, *_place(storage), label, image)

    def _socket(self, storage: Storage[NbdConfig], label: str) -> str:
        is_snapshot = "@" in label
        return str(self._view(storage, label).socket if is_snapshot else _place(storage)[0] / "nbd")

    # --- snapshots -----------------------------------------------------------------------------

    def snapshot(self, storage: Storage[NbdConfig], name: str, snapname: str) -> None:
        """An internal snapshot, by the daemon while it has the image open (T-50)."""
        with self._daemon(storage).session() as session:
            if session and session.exports(name):
                session.snapshot(name, snapname)
                return
        self._qemu_img_snapshot(storage, "-c", name, snapname)

    def snapshot_delete(self, storage: Storage[NbdConfig], name: str, snapname: str) -> None:
        """Delete it, online or offline."""
        with self._daemon(storage).session() as session:
            if session and session.exports(name):
                session.snapshot_delete(name, snapname)
                return
        self._qemu_img_snapshot(storage, "-d", name, snapname)

    def snapshot_rollback(self, storage: Storage[NbdConfig], name: str, snapname: str) -> None:
        """Go back; newer snapshots stay."""
        self._qemu_img_snapshot(storage, "-a", name, snapname)

    def snapshots(self, storage: Storage[NbdConfig], name: str) -> dict[str, SnapshotInfo]:
        """What the image lists, oldest first."""
        found = qemu_img.info(storage, _file(storage, name), "qcow2").get("snapshots", [])
        return {one["name"]: SnapshotInfo(id=one["id"], timestamp=one["date-sec"]) for one in found}

    def _qemu_img_snapshot(
        self, storage: Storage[NbdConfig], action: str, name: str, snapname: str
    ) -> None:
        storage.run([qemu_img.QEMU_IMG, "snapshot", "-q", action, snapname, _file(storage, name)])


def _label(name: str, snapname: str | None) -> str:
    return f"{name}@{snapname}" if snapname else name


def _place(storage: Storage[NbdConfig]) -> tuple[Path, str]:
    """Directory of the sockets, name of the daemon's unit."""
    return RUN / storage.storeid, f"pve-pybridge-nbd-{storage.storeid}"


def _file(storage: Storage[NbdConfig], name: str) -> str:
    return f"{storage.config.folder}/{name}.qcow2"


def _unfinished(storage: Storage[NbdConfig], name: str) -> Path:
    return Path(storage.config.folder) / f".importing-{name}"


def _volume(storage: Storage[NbdConfig], name: str) -> BlockVolume | None:
    found = qcow2.header(_file(storage, name))
    if found is None:
        return None
    base = found.backing.removesuffix(".qcow2") if found.backing else None
    return BlockVolume(name, found.size, base, used=found.used, ctime=found.ctime)
