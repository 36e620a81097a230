# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyrbd``: Ceph RBD images, opened by QEMU itself or mapped by the kernel (``krbd``).

The options are those of PVE's own RBD storage.  Everything is done by ``rbd`` and ``ceph``, not by
their Python bindings: a command ends with the call it serves, a thread that waits in librbd for a
dead cluster can't be ended, and mapping needs the command anyway.

Without ``krbd`` nothing is attached for QEMU; containers and TPM state still get a kernel device.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from pve_pybridge import (
    Attachment,
    BlockPlugin,
    BlockVolume,
    Bytes,
    Cleanup,
    Hints,
    Rule,
    Secret,
    SnapshotInfo,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    builtin,
    secret,
    streams,
)
from pve_pybridge.ceph import CephFailed, Cluster, Images, cluster, rbd

BASE_SNAPSHOT: Final = "__base__"
"""The protected snapshot of a base image, which its linked clones hang on; PVE's name for it."""
BASE_IMAGE: Final = re.compile(r"base-[0-9]+-[^/\s@]+")
MSGR2_PORT: Final = "3300"
DEVICE_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class RbdConfig(StorageConfig):
    """PVE's own properties for RBD."""

    monhost: str | None = builtin(default=None)
    pool: str = builtin(default="rbd")
    data_pool: str | None = builtin(default=None)
    namespace: str | None = builtin(default=None)
    username: str = builtin(default="admin")
    krbd: bool = builtin(default=False)
    keyring: Secret | None = secret("Client keyring contents", builtin="keyring")


Store: TypeAlias = Storage[RbdConfig]


class PyRbd(BlockPlugin[RbdConfig]):
    """RBD images."""

    type = "pyrbd"
    shared = True
    default_content = ("images",)
    allocation_unit = 1 << 20
    reads_zero = True
    clones_snapshots = True
    hint_options = {"guest-is-windows": {"rxbounce": True}}
    rules = {
        "volume_qemu_snapshot_method": [Rule("storage", {"option:krbd": True}), Rule("qemu")],
        "volume_snapshot_needs_fsfreeze": [Rule(True)],
    }
    sysfs: ClassVar = "/sys/bus/rbd/devices"
    devices: ClassVar = "/dev/rbd-pve"

    def __init__(self) -> None:
        self._fsids: dict[Cluster, str] = {}

    # --- configuration -------------------------------------------------------------------------

    def on_add_hook(self, storage: Store, scfg: Any, sensitive: Mapping[str, str]) -> None:
        """Check the keyring, and write what QEMU needs to find it."""
        if "keyring" in sensitive:
            cluster.store_keyring(storage.storeid, sensitive["keyring"])
        _cluster(storage)

    def on_update_hook_full(
        self,
        storage: Store,
        update: Any,
        delete: Sequence[str] | None,
        sensitive: Mapping[str, str | None],
    ) -> None:
        """The same for a new keyring; QEMU must not be pointed at one that is gone."""
        if keyring := sensitive.get("keyring"):
            cluster.store_keyring(storage.storeid, keyring)
        elif "keyring" in sensitive:
            cluster.forget_conf(storage.storeid)

    def on_delete_hook(self, storage: Store) -> None:
        """Remove our configuration file; the host removes the keyring."""
        cluster.forget_conf(storage.storeid)

    # --- cluster -------------------------------------------------------------------------------

    def check_connection(self, storage: Store) -> bool:
        """Whether a monitor lets us in; ``rados`` takes a tenth of the time of ``ceph``."""
        try:
            ask = ["rados", "--client-mount-timeout", "2", "lspools"]
            cluster.run(storage, _cluster(storage), ask)
        except StorageError as err:
            storage.warn(f"can't reach the cluster: {err}")
            return False
        return True

    def status(self, storage: Store) -> Status:
        """What the pool holds and can still take, both without replication."""
        pool = storage.config.data_pool or storage.config.pool
        done = cluster.run(storage, _cluster(storage), ["ceph", "df", "--format", "json"])
        for entry in rbd.decoded(done)["pools"]:
            if entry["name"] == pool:
                stats = entry["stats"]
                used, avail = stats.get("stored", stats["bytes_used"]), stats["max_avail"]
                return Status(total=used + avail, avail=avail, used=used)
        raise StorageError(f"pool '{pool}' does not exist")

    def get_identity(self, storage: Store) -> str:
        """Cluster, pool and namespace."""
        return f"{self._fsid(storage)}/{_images(storage).spec()}"

    def _fsid(self, storage: Store) -> str:
        where = _cluster(storage)
        if where not in self._fsids:
            self._fsids[where] = cluster.fsid(storage, where)
        return self._fsids[where]

    # --- images --------------------------------------------------------------------------------

    def volumes(self, storage: Store) -> list[BlockVolume]:
        """The pool's images; a linked clone names its base."""
        return [
            BlockVolume(entry["image"], entry["size"], base=_base(entry.get("parent") or {}))
            for entry in _images(storage).entries()
        ]

    def volume_names(self, storage: Store) -> list[str]:
        """One question, where a list with sizes opens every image."""
        return _images(storage).names()

    def size(self, storage: Store, name: str) -> int | None:
        """Size of one image."""
        return _images(storage).size(name)

    def create(self, storage: Store, name: str, size: int) -> None:
        """A thin image; PVE's own plugin counts in MiB as well."""
        _images(storage).create(name, size // self.allocation_unit)

    def delete(self, storage: Store, name: str) -> None:
        """Remove the image; a base image's own snapshot goes first."""
        if name.startswith("base-"):
            with contextlib.suppress(CephFailed):  # rm will say what is wrong
                self.snapshot_delete(storage, name, BASE_SNAPSHOT)
        images = _images(storage)
        images.run("rm", images.spec(name))

    def free_image(
        self, storage: Store, volname: str, is_base: bool = False, format: str | None = None
    ) -> Cleanup | None:
        """Nothing, not even a snapshot, goes from an image that somebody has open (C-062)."""
        name = self.parse_volname(volname).name
        self._release(storage, name)
        images = _images(storage)
        if images.size(name) is not None and (users := images.users(name)):
            raise StorageError(f"volume '{volname}' is in use by {', '.join(users)}")
        return super().free_image(storage, volname, is_base, format)

    def grow(self, storage: Store, name: str, size: int, device: str | None) -> None:
        """``--allow-shrink`` is never given; the kernel learns of the size by itself (T-06)."""
        images = _images(storage)
        images.run("resize", "--size", str(size // self.allocation_unit), images.spec(name))
        if device:
            file = Path(self.sysfs, device.removeprefix("/dev/rbd"), "size")
            _wait(storage, lambda: int(file.read_text()) == size, f"{device} has its old size")

    def volume_resize(
        self,
        storage: Store,
        volname: str,
        size: Bytes,
        running: bool = False,
        snapname: str | None = None,
    ) -> None:
        """A running QEMU that opened the image itself resizes it, too."""
        if not running or storage.config.krbd:
            super().volume_resize(storage, volname, size, running, snapname)

    def rename(self, storage: Store, name: str, new_name: str) -> None:
        """Snapshots, clones and parents go by ID and stay as they are."""
        images = _images(storage)
        images.run("rename", images.spec(name), images.spec(new_name))

    # --- kernel devices ------------------------------------------------------------------------

    def device(self, storage: Store, name: str, snapname: str | None) -> str:
        """The link that PVE's udev rule makes; unlike /dev/rbd/… it tells clusters apart."""
        return f"{self.devices}/{self._fsid(storage)}/{_images(storage).spec(name, snapname)}"

    def attached(self, storage: Store, name: str, snapname: str | None) -> Attachment | None:
        """What sysfs says; the cluster is asked for its ID only if something looks like ours."""
        found = _images(storage).mapped(self.sysfs, name, snapname)
        return found.get(self._fsid(storage)) if found else None

    def attach(
        self, storage: Store, name: str, snapname: str | None, options: Mapping[str, object]
    ) -> None:
        """Map, and wait for the link."""
        _images(storage).map(name, snapname, options)
        link = self.device(storage, name, snapname)
        _wait(storage, lambda: os.path.exists(link), f"mapped, but there is no {link}")

    def detach(self, storage: Store, name: str, snapname: str | None) -> None:
        """Unmap, however often it is mapped."""
        while now := self.attached(storage, name, snapname):
            _images(storage).unmap(now.device)

    # --- activation: only krbd attaches for QEMU -----------------------------------------------

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        """Map if the kernel serves QEMU; librbd needs nothing."""
        if storage.config.krbd:
            super().activate_volume(storage, volname, snapname, hints)

    def map_volume(self, storage: Store, volname: str, snapname: str | None, hints: Hints) -> str:
        """Containers and TPM state need a device in either mode (T-13)."""
        super().activate_volume(storage, volname, snapname, hints)
        return self.device(storage, self.parse_volname(volname).name, snapname)

    def path(self, storage: Store, volname: str, snapname: str | None = None) -> str:
        """The device, or what QEMU's tools take for librbd."""
        name = self.parse_volname(volname).name
        if storage.config.krbd:
            return self.device(storage, name, snapname)
        where = _cluster(storage)
        parts = [f"rbd:{_images(storage).spec(name, snapname)}"]
        parts += [f"conf={where.conf}"] if where.conf else []
        if where.monitors:
            hosts = where.mon_host(";").replace(":", "\\:")
            parts += [f"mon_host={hosts}", f"auth_supported={where.auth}"]
        parts += [f"id={where.user}"] if where.auth != "none" else []
        parts += [f"keyring={where.keyring}"] if where.keyring else []
        return ":".join(parts)

    def qemu_blockdev_options(
        self, storage: Store, volname: str, machine_version: str | None, options: Mapping[str, Any]
    ) -> dict[str, object]:
        """The mapped device, or QEMU's rbd driver; the key is found by way of *conf*."""
        if storage.config.krbd:
            return super().qemu_blockdev_options(storage, volname, machine_version, options)
        where, config = _cluster(storage), storage.config
        name = self.parse_volname(volname).name
        blockdev: dict[str, object] = {"driver": "rbd", "pool": config.pool, "image": name}
        optional = {
            "namespace": config.namespace,
            "snapshot": options.get("snapshot-name"),
            "conf": where.conf,
            "user": where.user if where.auth != "none" else None,
        }
        blockdev |= {key: value for key, value in optional.items() if value}
        if where.monitors:
            blockdev["server"] = [
                {"host": host, "port": port or MSGR2_PORT} for host, port in where.monitors
            ]
            blockdev["auth-client-required"] = [where.auth]
        if (options.get("hints") or {}).get("efi-disk"):
            self._write_back(storage, name)
        return blockdev

    def _write_back(self, storage: Store, name: str) -> None:
        """Firmware variables are written in tiny pieces, slow without a cache; but no reason to
        refuse a start (C-078)."""
        images = _images(storage)
        try:
            images.run("config", "image", "set", images.spec(name), "rbd_cache_policy", "writeback")
        except CephFailed as err:
            storage.warn(f"the EFI disk stays slow: {err}")

    # --- snapshots and clones ------------------------------------------------------------------

    def snapshots(self, storage: Store, name: str) -> dict[str, SnapshotInfo]:
        """PVE's snapshots of an image."""
        found = _images(storage).snapshots(name)
        found.pop(BASE_SNAPSHOT, None)
        return found

    def snapshot(self, storage: Store, name: str, snapname: str) -> None:
        """Instantaneous."""
        images = _images(storage)
        images.run("snap", "create", images.spec(name, snapname))

    def snapshot_delete(self, storage: Store, name: str, snapname: str) -> None:
        """One that has been cloned goes when its last clone has gone."""
        _images(storage).remove_snapshot(name, snapname)

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        """Newer snapshots stay; takes as long as the image is big."""
        images = _images(storage)
        images.run("snap", "rollback", images.spec(name, snapname))

    def create_base(self, storage: Store, volname: str) -> str:
        """Rename, then give the clones to come something to hang on."""
        new = super().create_base(storage, volname)
        old_name, name = self.parse_volname(volname).name, self.parse_volname(new).name
        storage.on_failure(self.rename, storage, name, old_name)
        self.snapshot(storage, name, BASE_SNAPSHOT)
        storage.on_failure(self.snapshot_delete, storage, name, BASE_SNAPSHOT)
        _images(storage).protect(name, BASE_SNAPSHOT)
        return new

    def clone(self, storage: Store, name: str, snapname: str | None, new_name: str) -> bool:
        """From the base's own snapshot, or from one of PVE's (then no name tells, T-22)."""
        _images(storage).clone(name, snapname or BASE_SNAPSHOT, new_name)
        return snapname is None

    # --- transfer: rbd's own streams, so that nothing has to be mapped -------------------------

    def volume_export(
        self,
        storage: Store,
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
    ) -> None:
        """Size and data of an image or a snapshot."""
        self._check_stream("export", format, base_snapshot, with_snapshots)
        name = self.parse_volname(volname).name
        size = _images(storage).size(name, snapshot)
        if size is None:
            raise StorageError(f"volume '{storage.volid(volname)}' does not exist")
        streams.write_header(storage, fh, size)
        _images(storage).send(fh, name, snapshot)

    def volume_import(
        self,
        storage: Store,
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
        allow_rename: bool = False,
    ) -> str:
        """An image of exactly the stream's size."""
        self._check_stream("import", format, base_snapshot, with_snapshots)
        vmid, name = self._import_name(storage, volname, allow_rename)
        size, images = streams.read_header(storage, fh), _images(storage)
        return self._take(storage, vmid, name, lambda chosen: images.receive(fh, chosen, size))


def _cluster(storage: Store) -> Cluster:
    return cluster.find(storage.storeid, storage.config.monhost, storage.config.username)


def _images(storage: Store) -> Images:
    config = storage.config
    return Images(storage, _cluster(storage), config.pool, config.namespace, config.data_pool)


def _base(parent: Mapping[str, str]) -> str | None:
    """The base image a clone hangs on, if its name shall say so."""
    is_base = parent.get("snapshot") == BASE_SNAPSHOT and BASE_IMAGE.fullmatch(parent["image"])
    return parent["image"] if is_base else None


def _wait(storage: Store, ready: Callable[[], bool], otherwise: str) -> None:
    """udev and the kernel need a moment (T-20)."""
    ends = time.monotonic() + DEVICE_SECONDS
    while not ready():
        if time.monotonic() > ends:
            raise StorageError(otherwise)
        storage.sleep(0.05)
