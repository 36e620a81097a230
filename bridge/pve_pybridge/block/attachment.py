# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Attach and detach, and the hint dance, once for all block storages (contract 4.1–4.3).

Hints are the desired state at VM start.  Nothing is remembered: the system itself says how a volume
is attached, so a volume tuned by anybody is left alone by activations without hints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import ConfigT
from ..errors import StorageError
from ..model import Hints
from ..storage import Storage
from .backend import Attachment, Backend, Options


class Attaching(Backend[ConfigT]):
    """activate, deactivate, map, unmap, path and QEMU's options."""

    def path(self, storage: Storage[ConfigT], volname: str, snapname: str | None = None) -> str:
        """The device, attached or not."""
        return self.device(storage, self.parse_volname(volname).name, snapname)

    def activate_volume(
        self, storage: Storage[ConfigT], volname: str, snapname: str | None, hints: Hints
    ) -> None:
        """Attach as the hints ask; a hint that can't be applied is a warning (C-078)."""
        name = self.parse_volname(volname).name
        wanted = self.options_for(hints)
        now = self.attached(storage, name, snapname)
        if now is None:
            self._attach(storage, name, snapname, wanted)
            return
        missing = {key: value for key, value in wanted.items() if now.options.get(key) != value}
        if not missing:
            return
        if not hints.plugin_may_deactivate_volume:
            storage.warn(f"{volname} is active without {_shown(missing)}, which takes effect later")
            return
        self._attach_again(storage, name, snapname, now, wanted)

    def deactivate_volume(
        self, storage: Storage[ConfigT], volname: str, snapname: str | None = None
    ) -> None:
        """Detach from this node; nothing to do for inactive and missing volumes."""
        name = self.parse_volname(volname).name
        if self.attached(storage, name, snapname) is not None:
            self.detach(storage, name, snapname)

    def map_volume(
        self, storage: Storage[ConfigT], volname: str, snapname: str | None, hints: Hints
    ) -> str:
        """The device, attached: containers and TPM state open what this returns (T-13)."""
        self.activate_volume(storage, volname, snapname, hints)
        return self.path(storage, volname, snapname)

    def unmap_volume(
        self, storage: Storage[ConfigT], volname: str, snapname: str | None = None
    ) -> None:
        """Undo map_volume, which deactivate_volume does just as well (T-14)."""
        self.deactivate_volume(storage, volname, snapname)

    def qemu_blockdev_options(
        self,
        storage: Storage[ConfigT],
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> dict[str, object]:
        """The attached device for QEMU; the live volume never stands in for a snapshot (C-082)."""
        path = self.path(storage, volname, options.get("snapshot-name"))
        return {"driver": "host_device", "filename": path}

    def _attach(
        self, storage: Storage[ConfigT], name: str, snapname: str | None, wanted: Options
    ) -> None:
        """Attach with options, without them if that is the only way."""
        if wanted:
            try:
                self.attach(storage, name, snapname, wanted)
                return
            except StorageError as err:
                storage.warn(f"{name} can't be attached with {_shown(wanted)}: {err}")
        self.attach(storage, name, snapname, {})

    def _attach_again(
        self,
        storage: Storage[ConfigT],
        name: str,
        snapname: str | None,
        now: Attachment,
        wanted: Options,
    ) -> None:
        """Down and up again on this node, keeping what others asked for."""
        try:
            self.detach(storage, name, snapname)
        except StorageError as err:
            storage.warn(f"{name} stays attached without {_shown(wanted)}: {err}")
            return
        self._attach(storage, name, snapname, {**now.options, **wanted})


def _shown(options: Options) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(options.items()))
