# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about activation, hints and what QEMU is told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pve_pybridge import Hints, Rule, StorageError

from . import caught_by
from .vault import Rules, Store, Vault


@caught_by("C-072")
class SecondActivationFails(Vault):
    """Attaches without looking: the second activation fails."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        self.attach(storage, self.parse_volname(volname).name, snapname, {})


@caught_by("C-072")
class CountsActivations(Vault):
    """Counts activations: two of them need two deactivations."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        counts: dict[str, int] = self.__dict__.setdefault("counts", {})
        counts[volname] = counts.get(volname, 0) + 1
        super().activate_volume(storage, volname, snapname, hints)

    def deactivate_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        counts: dict[str, int] = self.__dict__.setdefault("counts", {})
        counts[volname] = counts.get(volname, 1) - 1
        if counts[volname] <= 0:
            super().deactivate_volume(storage, volname, snapname)


@caught_by("C-073")
class ReadyAWhileLater(Vault):
    """Returns before the device is there; udev needs a moment."""

    def attach(self, storage: Store, name: str, snapname: str | None, options: Any) -> None:
        attach = super().attach
        threading.Timer(1.0, lambda: attach(storage, name, snapname, options)).start()


@caught_by("C-073")
class ReadOnlyDevice(Vault):
    """Attaches every volume as if it were a snapshot: what is written goes nowhere."""

    def attach(self, storage: Store, name: str, snapname: str | None, options: Any) -> None:
        copy = self.file(storage, f".copy-{name}", snapname)
        copy.write_bytes(self.file(storage, name, snapname).read_bytes())
        os.symlink(copy, self.device(storage, name, snapname))


@caught_by("C-074")
class DeactivateMindsInactive(Vault):
    """Deactivating an inactive volume is an error."""

    def deactivate_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        self.detach(storage, self.parse_volname(volname).name, snapname)


@caught_by("C-074")
class DeactivateMindsMissing(Vault):
    """Deactivating a volume that doesn't exist is an error."""

    def deactivate_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        self._size(storage, volname)
        super().deactivate_volume(storage, volname, snapname)


@caught_by("C-076", config={"shared": "1"})
class OneNodeAtATime(Vault):
    """Lets one node at a time have a volume: live migration fails."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        me = f"{socket.gethostname()} {os.getpid()}"
        owner = self.file(storage, f".owner-{self.parse_volname(volname).name}")
        if owner.exists() and owner.read_text() != me:
            raise StorageError(f"'{volname}' is active on {owner.read_text()}")
        owner.write_text(me)
        super().activate_volume(storage, volname, snapname, hints)

    def deactivate_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        name = self.parse_volname(volname).name
        self.file(storage, f".owner-{name}").unlink(missing_ok=True)
        super().deactivate_volume(storage, volname, snapname)


@caught_by("C-033")
class UnknownHintsFail(Vault):
    """Refuses hints it doesn't know: guests don't start after an upgrade of PVE."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        for hint in hints:
            if hint not in ("guest-is-windows", "plugin-may-deactivate-volume"):
                raise StorageError(f"unknown hint '{hint}'")
        super().activate_volume(storage, volname, snapname, hints)


@caught_by("C-078")
class HintsMustBeApplied(Vault):
    """Fails when a hint can't be applied, because the volume is active."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        name = self.parse_volname(volname).name
        if hints.guest_is_windows and self.attached(storage, name, snapname):
            raise StorageError("the volume is active with other options")
        super().activate_volume(storage, volname, snapname, hints)


@caught_by("C-077")
class ReattachesUnasked(Vault):
    """Takes an active volume down to apply a hint, without plugin-may-deactivate-volume."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        allowed = {**hints, "plugin-may-deactivate-volume": 1}
        super().activate_volume(storage, volname, snapname, Hints(allowed, storage.host))


@caught_by("C-077")
class NeedsHints(Vault):
    """Needs a hint that only the start of a guest gives."""

    def activate_volume(
        self, storage: Store, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        storage.log(f"Windows: {hints['guest-is-windows']}")
        super().activate_volume(storage, volname, snapname, hints)


@caught_by("C-079")
class MapsOnTheSide(Vault):
    """Maps in a second way, which deactivation doesn't undo."""

    def map_volume(self, storage: Store, volname: str, snapname: str | None, hints: Hints) -> str:
        link = Path(f"{self.path(storage, volname, snapname)}.mapped")
        link.unlink(missing_ok=True)
        link.symlink_to(self.file(storage, self.parse_volname(volname).name, snapname))
        return str(link)

    def unmap_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        Path(f"{self.path(storage, volname, snapname)}.mapped").unlink()


@caught_by("C-079")
class MapsToNothing(Vault):
    """Maps a volume and doesn't say where: containers don't start."""

    def map_volume(self, storage: Store, volname: str, snapname: str | None, hints: Hints) -> Any:
        self.activate_volume(storage, volname, snapname, hints)


@caught_by("C-079")
class UnmapsAnothers(Vault):
    """Unmapping leaves the device where it is."""

    def unmap_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        storage.log("nothing to unmap")


@caught_by("C-080")
class SnapshotsShowTheLiveVolume(Vault):
    """Attaches the live volume when asked for a snapshot: backups of the wrong moment."""

    def attach(self, storage: Store, name: str, snapname: str | None, options: Any) -> None:
        os.symlink(f"../{name}", self.device(storage, name, snapname))


class Told(Vault):
    """Something to derive from: one place to change what QEMU is told."""

    def qemu_blockdev_options(
        self,
        storage: Store,
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> dict[str, object]:
        return self.changed(
            super().qemu_blockdev_options(storage, volname, machine_version, options)
        )

    def changed(self, node: dict[str, object]) -> dict[str, object]:
        return node


@caught_by("C-081")
class DriverNotAllowed(Told):
    """Tells QEMU a format driver where PVE wants the protocol."""

    def changed(self, node: dict[str, object]) -> dict[str, object]:
        return {**node, "driver": "qcow2"}


@caught_by("C-081")
class OptionNotAllowed(Told):
    """Tells QEMU an option that PVE drops with a warning at each start."""

    def changed(self, node: dict[str, object]) -> dict[str, object]:
        return {**node, "locking": "off"}


@caught_by("C-081")
class FileAsDevice(Told):
    """Tells QEMU that a file is a block device."""

    def changed(self, node: dict[str, object]) -> dict[str, object]:
        return {**node, "driver": "host_device"}


@caught_by("C-081")
class NumbersAsText(Told):
    """Tells QEMU numbers as text, which its JSON schema refuses."""

    def changed(self, node: dict[str, object]) -> dict[str, object]:
        server = {"type": "unix", "path": "/run/vault"}
        return {"driver": "nbd", "server": server, "export": "a", "reconnect-delay": "5"}


@caught_by("C-082")
class LiveInsteadOfSnapshot(Vault):
    """Opens the live volume when QEMU is to have a snapshot."""

    def qemu_blockdev_options(
        self,
        storage: Store,
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> dict[str, object]:
        return {"driver": "file", "filename": self.path(storage, volname, None)}


@caught_by("C-083")
class QemuTakesTheSnapshots(Vault):
    """Leaves snapshots to QEMU, which can't take any of raw volumes."""

    rules: ClassVar[Rules] = {"volume_qemu_snapshot_method": (Rule("qemu"),)}
