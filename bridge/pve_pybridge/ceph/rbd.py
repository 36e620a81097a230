# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of one pool or namespace, by the ``rbd`` command, and what the kernel has mapped.

Image and snapshot go as one word (``pool/namespace/image@snapshot``): every subcommand takes that,
while options such as ``--namespace`` are unknown to some.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..block import Attachment, VolumeExists
from ..errors import StorageError
from ..model import SnapshotInfo
from ..process import Completed
from ..storage import Storage
from .cluster import BUSY, EXISTS, NOT_FOUND, CephFailed, Cluster, run

_NOT_OPTIONS: Final = ("name", "key", "secret", "_pool_ns")


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one pool or namespace during one call."""

    storage: Storage[Any]
    cluster: Cluster
    pool: str
    namespace: str | None = None
    data_pool: str | None = None

    def spec(self, name: str | None = None, snapname: str | None = None) -> str:
        """Pool, namespace, image and snapshot as rbd writes them."""
        path = "/".join(part for part in (self.pool, self.namespace, name) if part)
        return f"{path}@{snapname}" if snapname else path

    def run(self, *command: str, **options: Any) -> Completed:
        """Run ``rbd``; VolumeExists or CephFailed when it refuses."""
        try:
            return run(self.storage, self.cluster, ["rbd", *command], **options)
        except CephFailed as err:
            if err.status == EXISTS:
                raise VolumeExists(str(err)) from None
            raise

    def ask(self, *command: str) -> Any:
        """What a command answers, as data."""
        return decoded(self.run(*command, "--format", "json"))

    # --- images --------------------------------------------------------------------------------

    def entries(self) -> list[dict[str, Any]]:
        """``rbd ls -l`` without snapshots: image, size, maybe parent."""
        found = self.ask("ls", "-l", self.spec())
        return [entry for entry in found if "snapshot" not in entry]

    def names(self) -> list[str]:
        """``rbd ls``."""
        found: list[str] = self.ask("ls", self.spec())
        return found

    def size(self, name: str, snapname: str | None = None) -> int | None:
        """Size of an image or snapshot, None when there is no such image."""
        try:
            size: int = self.ask("info", self.spec(name, snapname))["size"]
        except CephFailed as err:
            if err.status == NOT_FOUND and "error opening image" in str(err):
                return None  # an unreachable pool has the same exit code
            raise
        return size

    def create(self, name: str, mib: int) -> None:
        """A thin image."""
        wanted = ["--image-format", "2", "--size", str(mib), *self._data_pool()]
        self.run("create", *wanted, self.spec(name))

    def clone(self, name: str, snapname: str, new_name: str) -> None:
        """An image that depends on a snapshot, which is protected for it."""
        self.protect(name, snapname)
        self.run("clone", self.spec(name, snapname), *self._data_pool(), self.spec(new_name))

    def users(self, name: str) -> list[str]:
        """Addresses of the clients that have an image open, 30 s longer if they crash."""
        return [watcher["address"] for watcher in self.ask("status", self.spec(name))["watchers"]]

    def send(self, fh: int, name: str, snapname: str | None) -> None:
        """Write an image's data to a descriptor."""
        image = self.spec(name, snapname)
        self.run("export", "--export-format", "1", image, "-", stdout=fh, log_stderr=True)

    def receive(self, fh: int, name: str, size: int) -> None:
        """Make an image of a stream; a name that is taken is refused before anything is read."""
        wanted = ["--export-format", "1", *self._data_pool()]
        try:
            self.run("import", *wanted, "-", self.spec(name), stdin=fh, log_stderr=True)
            received = self.size(name)
            if received != size:
                raise StorageError(f"import: stream ended after {received} of {size} bytes")
        except VolumeExists:
            raise
        except BaseException:
            self.storage.on_failure(self.run, "rm", self.spec(name))
            raise

    def _data_pool(self) -> tuple[str, ...]:
        return ("--data-pool", self.data_pool) if self.data_pool else ()

    # --- snapshots -----------------------------------------------------------------------------

    def snapshots(self, name: str) -> dict[str, SnapshotInfo]:
        """The snapshots of an image, oldest first."""
        found = sorted(self.ask("snap", "ls", self.spec(name)), key=lambda entry: entry["id"])
        return {
            entry["name"]: SnapshotInfo(id=str(entry["id"]), timestamp=_seconds(entry["timestamp"]))
            for entry in found
        }

    def protect(self, name: str, snapname: str) -> None:
        """What clones are made of must be protected; it may be already."""
        try:
            self.run("snap", "protect", self.spec(name, snapname))
        except CephFailed as err:
            if err.status != BUSY:
                raise

    def remove_snapshot(self, name: str, snapname: str) -> None:
        """Remove a snapshot; protected ones, too, as long as they have no clones."""
        snapshot = self.spec(name, snapname)
        try:
            self.run("snap", "rm", snapshot)
        except CephFailed as err:
            if err.status != BUSY or "protected" not in str(err):
                raise
            self.run("snap", "unprotect", snapshot)
            self.run("snap", "rm", snapshot)

    # --- kernel --------------------------------------------------------------------------------

    def map(self, name: str, snapname: str | None, options: Mapping[str, object]) -> None:
        """Have the kernel map an image, or a snapshot (read-only)."""
        words = [key if value is True else f"{key}={value}" for key, value in options.items()]
        extra = ["--options", ",".join(words)] if words else []
        self.run("map", self.spec(name, snapname), *extra)

    def unmap(self, device: str) -> None:
        """Take a device away; the kernel refuses one that is open (C-075)."""
        try:
            self.run("unmap", device)
        except CephFailed as err:
            raise StorageError(f"{device} is in use") if err.status == BUSY else err from None

    def mapped(self, sysfs: str, name: str, snapname: str | None) -> dict[str, Attachment]:
        """Cluster ID → how an image is mapped there, as sysfs tells."""
        wanted = [self.pool, self.namespace or "", name, snapname or "-"]
        found = {}
        for entry in sorted(Path(sysfs).glob("*")):
            with contextlib.suppress(OSError):  # unmapped meanwhile
                facts = [_fact(entry, fact) for fact in ("pool", "pool_ns", "name", "current_snap")]
                if facts == wanted:
                    options = _map_options(_fact(entry, "config_info"))
                    device = Attachment(f"/dev/rbd{entry.name}", options)
                    found[_fact(entry, "cluster_fsid")] = device
        return found


def decoded(done: Completed) -> Any:
    """A command's output as data."""
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise StorageError(f"'{done.args[0]}' gave no JSON: {done.text[:100]!r}") from None


def _seconds(text: str) -> int:
    """``Sun Nov 22 13:35:57 2026``, in UTC by the command's environment."""
    return calendar.timegm(time.strptime(text, "%a %b %d %H:%M:%S %Y"))


def _fact(entry: Path, name: str) -> str:
    return (entry / name).read_text().strip()


def _map_options(config_info: str) -> dict[str, object]:
    """Monitors, options, pool, image, snapshot in one line; options that are identity left out."""
    pairs = [word.partition("=") for word in config_info.split()[1].split(",")]
    return {
        key: value if equals else True for key, equals, value in pairs if key not in _NOT_OPTIONS
    }
