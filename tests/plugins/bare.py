# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Only what every storage needs: all else is PVE's base method, a refusal or a static answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pve_pybridge import Rule, Status, Storage, StorageConfig, StoragePlugin, Volume
from pve_pybridge.names import BLOCK_NAMES, NamePattern


class Bare(StoragePlugin[StorageConfig]):
    type = "bare"
    shared = True
    names = (*BLOCK_NAMES, NamePattern("iso", r"iso/(?P<name>[^/\s]+\.iso)"))
    rules: ClassVar[Mapping[str, Sequence[Rule]]] = {
        **StoragePlugin.rules,
        "volume_export_formats": (Rule(["raw+size"], {"with_snapshots": False}),),
    }

    async def path(
        self, storage: Storage[StorageConfig], volname: str, snapname: str | None
    ) -> str:
        return f"/dev/bare/{storage.storeid}/{volname}"

    async def status(self, storage: Storage[StorageConfig]) -> Status:
        return Status(total=10, avail=6, used=4)

    def list_images(
        self, storage: Storage[StorageConfig], vmid: int | None, vollist: Sequence[str] | None
    ) -> list[Volume]:
        return [Volume(volname="vm-100-disk-0", format="raw", size=1024, vmid=100)]
