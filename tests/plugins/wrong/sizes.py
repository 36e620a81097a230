# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about sizes."""

from __future__ import annotations

import os
import time
from typing import Any

from pve_pybridge import Seconds, StorageError, VolumeSize

from . import caught_by
from .vault import Store, Vault


@caught_by("C-057")
class SizeTakenForKib(Vault):
    """Takes the size, which is bytes, for KiB: volumes a thousand times too big."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size * 1024)


@caught_by("C-057")
class SizeGivenInKib(Vault):
    """Gives the backend KiB where it wants bytes: volumes a thousand times too small."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size // 1024)


@caught_by("C-058")
class RoundsDownToMib(Vault):
    """Rounds sizes down to whole MiB: an EFI disk of 528 KiB gets nothing."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size // (1 << 20) * (1 << 20))


@caught_by("C-029")
class LosesFractionsOfKib(Vault):
    """Rounds down to whole KiB: 2048.5 KiB lose their half."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size // 1024 * 1024)

    allocation_unit = 512


@caught_by("C-057")
class AtLeastOneGib(Vault):
    """Makes every volume at least one GiB."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, max(size, 1 << 30))


@caught_by("C-066")
class ResizeReturnsEarly(Vault):
    """Resizes in the background: the device has its old size when resize returns."""

    def grow(self, storage: Store, name: str, size: int, device: str | None) -> None:
        storage.log("resizing soon")


@caught_by("C-066")
class ResizeTakesIncrement(Vault):
    """Takes the new size for the increment."""

    def grow(self, storage: Store, name: str, size: int, device: str | None) -> None:
        super().grow(storage, name, size + (1 << 30), device)


@caught_by("C-066")
class ResizeShrinks(Vault):
    """Shrinks a volume when asked for less, and its data is gone."""

    def volume_resize(
        self,
        storage: Store,
        volname: str,
        size: int,
        running: bool = False,
        snapname: str | None = None,
    ) -> None:
        os.truncate(self.file(storage, self.parse_volname(volname).name), size)


@caught_by("C-066")
class ResizeKillsTheServer(Vault):
    """A native library crashes the process while resizing."""

    def grow(self, storage: Store, name: str, size: int, device: str | None) -> None:
        os.abort()


@caught_by("C-065")
class SizeInfoInKib(Vault):
    """Reports sizes in KiB."""

    def volume_size_info(
        self, storage: Store, volname: str, timeout: Seconds | None = None
    ) -> VolumeSize:
        return VolumeSize(super().volume_size_info(storage, volname, timeout).size // 1024)


@caught_by("C-065")
class MissingVolumeHasSizeZero(Vault):
    """Says 0 bytes of a volume that doesn't exist."""

    def volume_size_info(
        self, storage: Store, volname: str, timeout: Seconds | None = None
    ) -> VolumeSize:
        try:
            return super().volume_size_info(storage, volname, timeout)
        except StorageError:
            return VolumeSize(0)


@caught_by("C-016")
class ParentOutOfThinAir(Vault):
    """Reports a base image as parent of volumes that have none."""

    def volume_size_info(
        self, storage: Store, volname: str, timeout: Seconds | None = None
    ) -> VolumeSize:
        size = super().volume_size_info(storage, volname, timeout).size
        return VolumeSize(size, parent="base-100-disk-0")


@caught_by("C-016")
class CtimeIsText(Vault):
    """Gives the creation time as text."""

    def volume_size_info(self, storage: Store, volname: str, timeout: Seconds | None = None) -> Any:
        size = super().volume_size_info(storage, volname, timeout).size
        return VolumeSize(size, ctime=time.strftime("%Y-%m-%d"))  # type: ignore[arg-type]
