# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes on top of the bundled plugins: backups and attributes, and busy devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pve_pybridge import DirectoryConfig, DirectoryPlugin, Storage
from pve_pybridge.loader import load

from . import caught_by

PLUGINS = Path(__file__).resolve().parents[3] / "python_plugins"
PyLoop: Any = load(str(PLUGINS / "pyloop.py"))


class PyDir(DirectoryPlugin[DirectoryConfig]):
    """As the bundled one."""

    type = "pydir"


@caught_by("C-101")
class ProtectionIsLost(PyDir):
    """Says that a backup is protected now, and forgets it."""

    def update_volume_attribute(
        self, storage: Storage[Any], volname: str, attribute: str, value: str | None
    ) -> None:
        if attribute != "protected":
            super().update_volume_attribute(storage, volname, attribute, value)


@caught_by("C-101")
class NotesLoseTheirLines(PyDir):
    """Keeps the first line of the notes only."""

    def get_volume_attribute(self, storage: Storage[Any], volname: str, attribute: str) -> Any:
        found = super().get_volume_attribute(storage, volname, attribute)
        return str(found).splitlines()[0] if found and attribute == "notes" else found


@caught_by("C-101")
class AnyAttributeIsFine(PyDir):
    """Says that it stored an attribute which it doesn't know."""

    def update_volume_attribute(
        self, storage: Storage[Any], volname: str, attribute: str, value: str | None
    ) -> None:
        if attribute in ("notes", "protected"):
            super().update_volume_attribute(storage, volname, attribute, value)


@caught_by("C-101")
class ProtectedBackupsCanBeFreed(PyDir):
    """Frees a protected backup all the same."""

    def free_image(
        self,
        storage: Storage[Any],
        volname: str,
        is_base: bool = False,
        format: str | None = None,
    ) -> None:
        self.update_volume_attribute(storage, volname, "protected", None)
        super().free_image(storage, volname, is_base, format)


@caught_by("C-100")
class DryRunPrunes(PyDir):
    """Removes backups in a dry run."""

    def prune_backups(
        self,
        storage: Storage[Any],
        keep: Mapping[str, int],
        vmid: int | None = None,
        type: str | None = None,
        dryrun: bool = False,
    ) -> Any:
        return super().prune_backups(storage, keep, vmid, type, False)


@caught_by("C-100")
class PruneNeverRemoves(PyDir):
    """Marks backups for removal and leaves them."""

    def prune_backups(
        self,
        storage: Storage[Any],
        keep: Mapping[str, int],
        vmid: int | None = None,
        type: str | None = None,
        dryrun: bool = False,
    ) -> Any:
        return super().prune_backups(storage, keep, vmid, type, True)


@caught_by("C-100")
class PruneForgetsProtection(PyDir):
    """Marks a protected backup for removal."""

    def prune_backups(
        self,
        storage: Storage[Any],
        keep: Mapping[str, int],
        vmid: int | None = None,
        type: str | None = None,
        dryrun: bool = False,
    ) -> Any:
        found = super().prune_backups(storage, keep, vmid, type, dryrun)
        marks = {"protected": "remove"}
        return [dataclasses.replace(one, mark=marks.get(one.mark, one.mark)) for one in found]


@caught_by("C-075")
class TakesBusyDevicesAway(PyLoop):  # type: ignore[misc]  # loaded from its file
    """Detaches a device that is in use; the kernel does it behind the guest's back."""

    def detach(self, storage: Storage[Any], name: str, snapname: str | None) -> None:
        now = self.attached(storage, name, snapname)
        storage.run(["losetup", "--detach", now.device])
        Path(self.device(storage, name, snapname)).unlink(missing_ok=True)


@caught_by("C-066")
class DeviceKeepsItsSize(PyLoop):  # type: ignore[misc]  # loaded from its file
    """Grows the volume, and the attached device stays as it was."""

    def grow(self, storage: Storage[Any], name: str, size: int, device: str | None) -> None:
        super().grow(storage, name, size, None)
