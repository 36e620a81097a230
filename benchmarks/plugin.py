# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A plugin that does nothing, so that what a call costs is the bridge.

``BenchNative.pm`` is the same in Perl, ``spawn.py`` the same as a command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.volumes import volumes
from pve_pybridge import Hints, Status, Storage, StorageConfig, StoragePlugin, Volume, VolumeSize

Call = Storage[StorageConfig]


class Bench(StoragePlugin[StorageConfig]):
    """Everything a VM start and pvestatd ask for crosses the socket."""

    type = "bench"

    def check_connection(self, storage: Call) -> bool:
        return True

    def activate_storage(self, storage: Call) -> None:
        return None

    def status(self, storage: Call) -> Status:
        return Status(total=1 << 40, avail=1 << 39, used=1 << 39)

    def path(self, storage: Call, volname: str, snapname: str | None) -> str:
        return f"/dev/bench/{volname}"

    def activate_volume(
        self, storage: Call, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        return None

    def qemu_blockdev_options(
        self,
        storage: Call,
        volname: str,
        machine_version: str | None,
        options: Mapping[str, object],
    ) -> Mapping[str, object]:
        return {"driver": "host_device", "filename": f"/dev/bench/{volname}"}

    def volume_size_info(self, storage: Call, volname: str, timeout: float | None) -> VolumeSize:
        return VolumeSize(1 << 35)

    def list_images(
        self, storage: Call, vmid: int | None, vollist: Sequence[str] | None
    ) -> list[Volume]:
        """As many volumes as *vmid* says."""
        return volumes(vmid or 0)
