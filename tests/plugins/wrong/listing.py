# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about names, paths and lists."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pve_pybridge import BlockVolume, StorageError, Volume
from pve_pybridge.names import NamePattern

from . import caught_by
from .vault import Store, Vault


class Lists(Vault):
    """Something to derive from: one place to change what is listed."""

    def list_images(
        self, storage: Store, vmid: int | None = None, vollist: Sequence[str] | None = None
    ) -> list[Volume]:
        return self.changed(storage, super().list_images(storage, vmid, vollist))

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return volumes


@caught_by("C-046")
class ListsEveryGuest(Vault):
    """Ignores whose volumes are asked for: removing a guest would remove all."""

    def list_images(
        self, storage: Store, vmid: int | None = None, vollist: Sequence[str] | None = None
    ) -> list[Volume]:
        return super().list_images(storage, None, vollist)


@caught_by("C-047")
class IgnoresVollist(Vault):
    """Ignores which volumes are asked for."""

    def list_images(
        self, storage: Store, vmid: int | None = None, vollist: Sequence[str] | None = None
    ) -> list[Volume]:
        return super().list_images(storage, vmid, None)


@caught_by("C-047")
class VollistAndGuest(Vault):
    """Lists of the given volumes only those of the given guest."""

    def list_images(
        self, storage: Store, vmid: int | None = None, vollist: Sequence[str] | None = None
    ) -> list[Volume]:
        found = super().list_images(storage, vmid, vollist)
        return [volume for volume in found if vmid in (None, volume.vmid)]


@caught_by("C-047")
class VollistByPlainName(Vault):
    """Compares the given volume IDs with plain names, so that none is ever found."""

    def list_images(
        self, storage: Store, vmid: int | None = None, vollist: Sequence[str] | None = None
    ) -> list[Volume]:
        found = super().list_images(storage, None if vollist else vmid)
        return [v for v in found if vollist is None or v.volname in vollist]


@caught_by("C-047", unreachable={"folder": "/nonexistent"})
class ErrorsBecomeAnEmptyList(Vault):
    """Answers with an empty list when the backend can't be reached."""

    def check_connection(self, storage: Store) -> bool:
        return True

    def activate_storage(self, storage: Store) -> None:
        try:
            super().activate_storage(storage)
        except StorageError:
            storage.warn("not yet there")

    def volumes(self, storage: Store) -> list[BlockVolume]:
        try:
            return super().volumes(storage)
        except StorageError:
            return []


@caught_by("C-048")
class VolidTwiceAsLong(Lists):
    """Puts the storage ID before the name, which the host does as well."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return [dataclasses.replace(v, volname=storage.volid(v.volname)) for v in volumes]


@caught_by("C-048")
class ListsTwice(Lists):
    """Lists a volume once for each of its two replicas."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return [*volumes, *volumes]


@caught_by("C-048")
class ListsSizesInKib(Lists):
    """Lists sizes in KiB."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return [dataclasses.replace(v, size=(v.size or 0) // 1024) for v in volumes]


@caught_by("C-048")
class ListsTheWrongOwner(Lists):
    """Lists every volume as that of guest 100."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return [dataclasses.replace(v, vmid=100) for v in volumes]


@caught_by("C-048")
class ListsAnotherFormat(Lists):
    """Lists the backend's own format instead of the one QEMU sees."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        return [dataclasses.replace(v, format="qcow2") for v in volumes]


@caught_by("C-048")
class CtimeIsAFloat(Lists):
    """Gives the creation time as a float, as os.stat does."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        stat = os.stat(storage.config.folder)
        return [dataclasses.replace(v, ctime=stat.st_ctime) for v in volumes]  # type: ignore[arg-type]


@caught_by("C-050")
class ListsSnapshots(Lists):
    """Lists snapshots among the volumes."""

    def changed(self, storage: Store, volumes: list[Volume]) -> list[Volume]:
        found = list(volumes)
        for volume in volumes:
            for snapname in self.snapshots(storage, volume.volname):
                name = f"{volume.volname}.{snapname}"
                found.append(dataclasses.replace(volume, volname=name))
        return found


@caught_by("C-050")
class ListsOtherStorages(Vault):
    """Lists the whole backend, other storages' volumes included."""

    def volumes(self, storage: Store) -> list[BlockVolume]:
        parent = Path(storage.config.folder).parent
        names = [file for file in parent.glob("dir*/vm-*") if "@" not in file.name]
        return [BlockVolume(file.name, file.stat().st_size) for file in names]


@caught_by("C-063")
class CachedForever(Vault):
    """Keeps the list it once fetched: freed volumes stay, new ones are missing."""

    def volumes(self, storage: Store) -> list[BlockVolume]:
        known: dict[str, Any] = self.__dict__.setdefault("known", {})
        if storage.storeid not in known or storage.call.method == "alloc_image":
            known[storage.storeid] = super().volumes(storage)
        return list(known[storage.storeid])


@caught_by("C-052")
class AnyContent(Vault):
    """Lists disk images whatever content is asked for."""

    def list_volumes(
        self, storage: Store, vmid: int | None, content_types: Sequence[str]
    ) -> list[Volume]:
        found = self.list_images(storage, vmid)
        return [dataclasses.replace(volume, content="images") for volume in found]


@caught_by("C-052")
class ContentMissing(Vault):
    """Lists volumes without saying what content they are."""

    def list_volumes(
        self, storage: Store, vmid: int | None, content_types: Sequence[str]
    ) -> list[Volume]:
        return self.list_images(storage, vmid) if "images" in content_types else []


@caught_by("C-042")
class AnythingIsAName(Vault):
    """Takes anything for a volume name, ``../../etc/passwd`` included."""

    names = (NamePattern("images", r"(?P<name>(?:(?P<base>base)|vm)?-?(?P<vmid>[0-9]+)?.*)"),)


@caught_by("C-043")
class NamesWithoutOwner(Vault):
    """Names don't tell whose the volume is."""

    names = (NamePattern("images", r"(?P<name>(?:vm|(?P<base>base))-[0-9]+-[^/\s]+)"),)

    def _check_owner(self, name: str, vmid: int) -> None:
        pass


@caught_by("C-053")
class OnePathPerGuest(Vault):
    """Forms the path from the guest's number alone: its disks collide."""

    def device(self, storage: Store, name: str, snapname: str | None) -> str:
        return super().device(storage, "-".join(name.split("-")[:2]), snapname)


@caught_by("C-053")
class PathOfTheProcess(Vault):
    """Puts its process' number into the path: another node has another one."""

    def device(self, storage: Store, name: str, snapname: str | None) -> str:
        return super().device(storage, f"{name}.{os.getpid()}", snapname)


@caught_by("C-053")
class PathKnownAfterwards(Vault):
    """Gives another path once the volume is active."""

    def path(self, storage: Store, volname: str, snapname: str | None = None) -> str:
        path = super().path(storage, volname, snapname)
        return os.path.realpath(path) if os.path.exists(path) else path
