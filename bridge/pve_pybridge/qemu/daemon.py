# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One qemu-storage-daemon per storage: block nodes, exported over NBD or as files through FUSE.

The daemon itself says what it exports.  It may crash, though, and then nothing in the system says
what it had exported: that is what the small files in ``wanted/`` are for, one per volume, written
before exporting and removed before taking the export away.  They are in /run, so a reboot, which
ends all guests, clears them.  Every session compares both and exports again what is missing; a
guest's QEMU reconnects by itself.

All changes happen in a *session*: under a lock, and not cancelled half way, since each is short.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from .. import atomic, newfile, process
from ..alive import is_alive, me
from ..errors import StorageError
from ..storage import Storage
from . import detached
from .qmp import NotListening, Qmp, QmpError

Blockdev = Mapping[str, object]
Describe = Callable[[str], Blockdev | None]
"""Label → its block node as in ``blockdev-add``, without a name; None if there's no such volume."""

_DAEMON: Final = "/usr/bin/qemu-storage-daemon"
_LOCK_SECONDS: Final = 60.0
LEAVE_SECONDS: Final = 2.0
"""How long a client that is about to hang up (a guest that just ended) counts as none."""
POLL_SECONDS: Final = 0.01
_SUN_PATH: Final = 107


class StorageDaemon:
    """The daemon whose sockets and notes are in *directory*; see ``session``."""

    def __init__(
        self,
        storage: Storage[Any],
        directory: Path,
        unit: str,
        describe: Describe,
        *,
        writethrough: bool = True,
    ):
        """*writethrough*: a completed write is in the file, whatever happens to the daemon.

        Without it, what the guest hasn't flushed is lost in a crash, metadata of the image that is
        only in the daemon's memory; and the guest, which goes on, never learns of it.
        """
        self.storage = storage
        self.writethrough = writethrough
        self.directory = directory
        self.describe = describe
        self.nbd_socket = directory / "nbd"
        self._qmp_socket = directory / "qmp"
        self._pidfile = directory / "pid"
        self._wanted = directory / "wanted"
        self._unit = unit

    def mountpoint(self, label: str) -> Path:
        """Where *label* is mapped by ``fuse``; below it are temporary mappings."""
        return self.directory / "map" / label

    @contextlib.contextmanager
    def started(self) -> Iterator[Session]:
        """``session``, after starting a daemon if none runs."""
        with self.session(start=True) as session:
            assert session is not None
            yield session

    @contextlib.contextmanager
    def session(self, *, start: bool = False, wait: bool = True) -> Iterator[Session | None]:
        """Work with the daemon; None when none runs and none has to.

        *start* starts one.  Without *wait*, None is also given when somebody else is at work.
        Ends the daemon when it exports nothing any more.
        """
        with self._locked(wait) as mine:
            qmp = self._connect(start) if mine else None
            if qmp is None:
                yield None
                return
            with qmp:
                session = Session(self, qmp)
                try:
                    session.restore()
                    yield session
                finally:
                    self._stop_if_idle(session, qmp)

    def wanted(self) -> dict[str, str]:
        """Label → kind of export, for everything that shall be exported."""
        try:
            files = [file for file in self._wanted.iterdir() if file.name[0] != "."]  # half written
            return {file.name: file.read_text() for file in files}
        except FileNotFoundError:
            return {}

    def want(self, label: str, kind: str) -> None:
        """Note that *label* shall be exported, whatever happens to the daemon."""
        self._wanted.mkdir(mode=0o700, exist_ok=True)
        atomic.write(self._wanted / label, kind)

    def unwant(self, label: str) -> None:
        """Forget that."""
        (self._wanted / label).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, wait: bool) -> Iterator[bool]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        ends = time.monotonic() + _LOCK_SECONDS
        try:
            while not (mine := _flock(descriptor)) and wait:
                if time.monotonic() > ends:
                    raise StorageError(f"the storage daemon of '{self.storage.storeid}' is busy")
                time.sleep(POLL_SECONDS)
            if mine and self._wanted.is_dir():
                newfile.remove_leftovers(str(self._wanted))
            yield mine
        finally:
            os.close(descriptor)

    def _connect(self, start: bool) -> Qmp | None:
        try:
            return Qmp(self._qmp_socket)
        except NotListening:
            pass
        wanted = self.wanted()
        if not wanted and not start:
            return None
        if wanted:
            names = ", ".join(sorted(wanted))
            self.storage.warn(f"the storage daemon was gone, exporting again: {names}")
        return self._start()

    def _start(self) -> Qmp:
        if len(os.fsencode(self.nbd_socket)) > _SUN_PATH:
            raise StorageError(f"'{self.nbd_socket}' is too long for a socket's name")
        detached.stop(self.storage, self._pidfile)
        command = [
            *(_DAEMON, "--daemonize", "--pidfile", str(self._pidfile)),
            *("--chardev", f"socket,id=qmp,path={self._qmp_socket},server=on,wait=off"),
            *("--monitor", "chardev=qmp"),
            *("--nbd-server", f"addr.type=unix,addr.path={self.nbd_socket},max-connections=0"),
        ]
        detached.start(self.storage, self._unit, command, self._pidfile)
        return Qmp(self._qmp_socket)

    def _stop_if_idle(self, session: Session, qmp: Qmp) -> None:
        if self.wanted() or session.exports():
            return
        qmp.command("quit")
        qmp.wait_closed()
        detached.wait_gone(self.storage, self._pidfile)


class Session:
    """The daemon's commands, by label: ``vm-100-disk-0``, ``vm-100-disk-0@snapshot``."""

    def __init__(self, daemon: StorageDaemon, qmp: Qmp):
        self._daemon = daemon
        self._qmp = qmp

    def exports(self, label: str | None = None) -> dict[str, str]:
        """Export ID → type: of *label*, or all."""
        return {
            one["id"]: one["type"]
            for one in self._qmp.command("query-block-exports")
            if label is None or one["node-name"] == node_name(label)
        }

    def kind(self, label: str) -> str | None:
        """How *label* is exported (``nbd`` or ``fuse``), temporary mappings aside."""
        found = self.exports(label)
        return next((kind for kind in ("fuse", "nbd") if _id(kind, label) in found), None)

    def restore(self) -> None:
        """Export what is missing, remove what dead processes have left."""
        exports = self.exports()
        for ident in exports:
            owner, _, number = ident.removeprefix("tmp-").rpartition("-")
            if ident.startswith("tmp-") and not is_alive(owner):
                self._remove(ident, exports[ident], hard=True)
                _clear(self._daemon.mountpoint(f".{number}"))
        for label, kind in self._daemon.wanted().items():
            if _id(kind, label) in exports:
                continue
            try:
                if self._daemon.describe(label) is None:
                    self._daemon.unwant(label)
                else:
                    self._add(label, kind, _id(kind, label))
            except StorageError as err:
                self._daemon.storage.warn(f"'{label}' can't be exported: {err}")

    def export(self, label: str, kind: str) -> None:
        """Export *label* as ``nbd`` or ``fuse``, and only so."""
        now = self.kind(label)
        if now == kind:
            return
        if now is not None:
            self._remove(_id(now, label), now, self._daemon.mountpoint(label))
        self._daemon.want(label, kind)
        try:
            self._add(label, kind, _id(kind, label))
        except BaseException:
            self._daemon.unwant(label)
            raise

    def map_for_now(self, label: str, *, writable: bool) -> tuple[str, Path]:
        """Map *label* beside its other exports, for as long as this process lives."""
        number = time.monotonic_ns()
        ident = f"tmp-{me()}-{number}"
        path = self._daemon.mountpoint(f".{number}")
        self._add(label, "fuse", ident, path, writable)
        return ident, path

    def unmap(self, label: str, ident: str, path: Path) -> None:
        """Undo ``map_for_now``."""
        self._remove(ident, "fuse", hard=True)
        _clear(path)
        self._remove_node(label)

    def drop(self, label: str) -> None:
        """Take *label* away; StorageError when it is in use, and then it stays."""
        kind = self.kind(label)
        self._daemon.unwant(label)  # first: dropping may not be undone by whoever comes next
        try:
            for ident, type_ in self.exports(label).items():
                self._remove(ident, type_, self._daemon.mountpoint(label))
        except BaseException:
            if kind:
                self._daemon.want(label, kind)
            raise
        _clear(self._daemon.mountpoint(label))
        self._remove_node(label)

    def resize(self, label: str, size: int) -> bool:
        """Resize an exported volume; True when an NBD client was dropped and has to come back.

        The NBD server lets nobody resize what it exports, and tells the size when a client
        connects, never again.  All requests of the dropped client are done before the change.
        """
        dropped = False
        if _id("nbd", label) in self.exports(label):
            try:
                self._remove(_id("nbd", label), "nbd", leave=0)
            except StorageError:
                self._remove(_id("nbd", label), "nbd", hard=True)
                dropped = True
        try:
            arguments = {"node-name": node_name(label), "size": size}
            self._qmp.command("block_resize", arguments)
        finally:
            self.restore()
        return dropped

    def snapshot(self, label: str, snapname: str) -> None:
        """Take an internal snapshot, between two requests of whoever writes."""
        arguments = {"device": node_name(label), "name": snapname}
        self._qmp.command("blockdev-snapshot-internal-sync", arguments)

    def snapshot_delete(self, label: str, snapname: str) -> None:
        """Delete an internal snapshot."""
        arguments = {"device": node_name(label), "name": snapname}
        self._qmp.command("blockdev-snapshot-delete-internal-sync", arguments)

    def _add(
        self,
        label: str,
        kind: str,
        ident: str,
        path: Path | None = None,
        writable: bool = True,
    ) -> None:
        """Open the volume, if it isn't, and export it.

        A node without exports is somebody's half-done work, maybe on a file that was deleted.
        """
        blockdev = self._daemon.describe(label)
        if blockdev is None:
            raise StorageError(f"volume '{self._daemon.storage.volid(label)}' does not exist")
        node = {"node-name": node_name(label)}
        if not self.exports(label):
            self._remove_node(label)
            self._qmp.command("blockdev-add", {**blockdev, **node})
        writable = writable and not blockdev.get("read-only")
        export = {"type": kind, "id": ident, **node, "writable": writable}
        if writable and path is None:
            export["writethrough"] = self._daemon.writethrough
        if kind == "nbd":
            export["name"] = label
        else:
            export["mountpoint"] = str(_free_mountpoint(path or self._daemon.mountpoint(label)))
        try:
            self._qmp.command("block-export-add", export)
        except QmpError:
            self._remove_node(label)
            raise

    def _remove(
        self,
        ident: str,
        kind: str,
        path: Path | None = None,
        *,
        hard: bool = False,
        leave: float = LEAVE_SECONDS,
    ) -> None:
        if kind == "fuse" and path and not ident.startswith("tmp-"):
            _unmount(path)
        ends = time.monotonic() + leave
        while ident in self.exports():
            try:
                mode = "hard" if hard else "safe"
                self._qmp.command("block-export-del", {"id": ident, "mode": mode})
            except QmpError as err:
                if time.monotonic() > ends and "in use" in str(err):
                    raise StorageError(f"the volume is in use ({kind} client)") from None
            time.sleep(POLL_SECONDS)

    def _remove_node(self, label: str) -> None:
        nodes = self._qmp.command("query-named-block-nodes", {"flat": True})
        name = node_name(label)
        if any(one["node-name"] == name for one in nodes) and not self.exports(label):
            self._qmp.command("blockdev-del", {"node-name": name})


def clients(path: Path) -> int:
    """How many clients are connected to the Unix socket *path*, as the kernel lists them."""
    rows = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines())
    return sum(len(row) == 8 and row[5] == "03" and row[7] == str(path) for row in rows)


def node_name(label: str) -> str:
    """A name for QEMU, which allows 31 letters, digits and few others."""
    import hashlib  # noqa: PLC0415  4 ms and 3.7 MiB, as it loads OpenSSL

    return "n" + hashlib.sha256(label.encode()).hexdigest()[:30]


def _id(kind: str, label: str) -> str:
    return f"{kind}-{node_name(label)}"


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_mountpoint(path: Path) -> Path:
    """A plain file to mount on; what is mounted there is left from a daemon that died."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _clear(path)
    path.touch(mode=0o600)
    return path


def _clear(path: Path) -> None:
    if _is_mounted(path):
        process.run(["umount", "--lazy", str(path)], checkpoint=lambda: None)
    path.unlink(missing_ok=True)


def _is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def _unmount(path: Path) -> None:
    """Refuses while somebody has the file open, which the daemon wouldn't."""
    if not _is_mounted(path):
        return
    done = process.run(["umount", str(path)], checkpoint=lambda: None, check=False)
    if done.status != 0:
        raise StorageError(f"the volume is in use ('{path}')")
