# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a directory storage lacks: an identity, hooks with traces, slow removal, mapped devices."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pve_pybridge import (
    Cleanup,
    DirectoryConfig,
    DirectoryPlugin,
    Hints,
    Secret,
    Storage,
    StorageError,
    option,
    secret,
)


@dataclass(frozen=True, kw_only=True)
class ExtraConfig(DirectoryConfig):
    fail: str | None = option("the method that fails", default=None)
    uuid: str | None = option("set when the storage is added", default=None)
    token: Secret | None = secret("kept out of storage.cfg")


Call = Storage[ExtraConfig]


class Extra(DirectoryPlugin[ExtraConfig]):
    type = "extra"

    def on_add_hook(
        self, storage: Call, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> Mapping[str, object] | None:
        super().on_add_hook(storage, scfg, sensitive)
        root = Path(str(scfg["path"]))
        root.mkdir(exist_ok=True)
        (root / "seen").write_text(" ".join(sorted(scfg)))
        self._fail(storage, "on_add_hook")
        scfg["extra-uuid"] = "generated"
        return {"extra-uuid": "generated"}

    def on_delete_hook(self, storage: Call) -> None:
        (Path(storage.config.path) / "seen").unlink()

    def activate_storage(self, storage: Call) -> None:
        self._fail(storage, "activate_storage")
        super().activate_storage(storage)

    def get_identity(self, storage: Call) -> str:
        file = Path(storage.config.path) / "uuid"
        if not file.exists():
            raise StorageError("this storage has no identity yet")
        return file.read_text()

    # --- removal that takes its time -----------------------------------------------------------

    def free_image(
        self, storage: Call, volname: str, is_base: bool = False, format: str | None = None
    ) -> Cleanup | None:
        path = self.path(storage, volname)
        aside = f"{storage.config.path}/trash.{os.path.basename(path)}"
        os.rename(path, aside)
        return Cleanup({"file": aside})

    def free_image_cleanup(self, storage: Call, data: Mapping[str, Any]) -> None:
        os.unlink(data["file"])
        storage.log(f"wiped by {os.getpid()}")

    # --- devices: links below "dev" ------------------------------------------------------------

    def _device(self, storage: Call, volname: str) -> Path:
        return Path(storage.config.path) / "dev" / os.path.basename(volname)

    def activate_volume(
        self,
        storage: Call,
        volname: str,
        snapname: str | None = None,
        hints: Hints | None = None,
    ) -> None:
        device = self._device(storage, volname)
        device.parent.mkdir(exist_ok=True)
        if hints and hints.guest_is_windows:
            storage.warn("hint 'guest-is-windows' can't be applied")
        if device.is_symlink():
            if not (hints and hints.plugin_may_deactivate_volume):
                return
            device.unlink()
        device.symlink_to(self.path(storage, volname, snapname))

    def deactivate_volume(self, storage: Call, volname: str, snapname: str | None = None) -> None:
        device = self._device(storage, volname)
        if not device.is_symlink():
            return
        with device.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(f"device {device.name} is busy") from None
        device.unlink()

    def map_volume(
        self,
        storage: Call,
        volname: str,
        snapname: str | None = None,
        hints: Hints | None = None,
    ) -> str | None:
        self.activate_volume(storage, volname, snapname, hints)
        return str(self._device(storage, volname))

    def unmap_volume(self, storage: Call, volname: str, snapname: str | None = None) -> None:
        self.deactivate_volume(storage, volname, snapname)

    def _fail(self, storage: Call, method: str) -> None:
        if storage.config.fail == method:
            raise StorageError(f"{method} fails")
