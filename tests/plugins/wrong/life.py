# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about allocating, freeing, renaming, cloning."""

from __future__ import annotations

import os
import random
import time
from typing import Any, ClassVar

from pve_pybridge import Bytes, NotSupported, Rule, StorageError

from . import caught_by
from .vault import Rules, Store, Vault


@caught_by("C-056")
class IgnoresTheName(Vault):
    """Chooses a name of its own although one was given: cloud-init drives are never found."""

    def alloc_image(
        self, storage: Store, vmid: int, format: str, name: str | None, size: Bytes
    ) -> str:
        return super().alloc_image(storage, vmid, format, None, size)


@caught_by("C-056")
class TakesForeignNames(Vault):
    """Makes a volume for one guest under the name of another's."""

    def _check_owner(self, name: str, vmid: int) -> None:
        pass


@caught_by("C-056")
class OverwritesWhatExists(Vault):
    """Makes a volume although its name is taken; the old one's data is gone."""

    def create(self, storage: Store, name: str, size: int) -> None:
        with self.file(storage, name).open("wb") as file:
            file.truncate(min(size, 1 << 30))


@caught_by("C-055")
class RandomNumbers(Vault):
    """Chooses a random disk number, not the lowest free one."""

    def _free_names(self, storage: Store, vmid: int) -> Any:
        yield f"vm-{vmid}-disk-{random.randrange(100, 1000)}"


@caught_by("C-055")
class CountsForTheNextNumber(Vault):
    """Takes the number of volumes as next number: a gap is never filled, a name taken twice."""

    def _free_names(self, storage: Store, vmid: int) -> Any:
        mine = [v for v in self.volumes(storage) if v.name.startswith(f"vm-{vmid}-")]
        yield f"vm-{vmid}-disk-{len(mine)}"


@caught_by("C-059")
class TakesAnyFormat(Vault):
    """Makes raw volumes when asked for qcow2."""

    def _check_format(self, format: str) -> None:
        pass


@caught_by("C-060")
class HalfMadeVolumeStays(Vault):
    """An allocation that fails half way leaves the volume behind."""

    def create(self, storage: Store, name: str, size: int) -> None:
        try:
            with self.file(storage, name).open("xb") as file:
                file.truncate(size)
        except OSError as err:
            raise StorageError(f"no room: {err.strerror}") from None


@caught_by("C-061")
class FreeMindsMissingVolumes(Vault):
    """Freeing a volume that is gone already is an error: a removal can't be repeated."""

    def free_image(
        self, storage: Store, volname: str, is_base: bool = False, format: str | None = None
    ) -> None:
        self._size(storage, volname)
        super().free_image(storage, volname, is_base, format)


@caught_by("C-061")
class FreeLeavesTheDevice(Vault):
    """Frees an active volume and leaves its device behind."""

    def free_image(
        self, storage: Store, volname: str, is_base: bool = False, format: str | None = None
    ) -> None:
        name = self.parse_volname(volname).name
        if self.size(storage, name) is not None:
            self.delete(storage, name)


@caught_by("C-061", timeout=3)
class FreeHangs(Vault):
    """Waits forever for the backend to say that the volume is gone."""

    def delete(self, storage: Store, name: str) -> None:
        time.sleep(3600)


@caught_by("C-063")
class FreeOnlyPretends(Vault):
    """Says that a volume was freed and keeps it."""

    def delete(self, storage: Store, name: str) -> None:
        storage.log("freed")


@caught_by("C-062")
class FreeForgetsSnapshots(Vault):
    """Frees a volume and keeps its snapshots: the next one of that name inherits them."""

    def snapshot_delete(self, storage: Store, name: str, snapname: str) -> None:
        if storage.call.method != "free_image":
            super().snapshot_delete(storage, name, snapname)


@caught_by("C-070")
class OldDataShowsThrough(Vault):
    """Promises zeros (sparseinit) and reuses freed space as it is: another guest's data."""

    def delete(self, storage: Store, name: str) -> None:
        super().file(storage, name).replace(super().file(storage, ".freed"))

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size)
        freed = self.file(storage, ".freed")
        if freed.exists():
            freed.replace(self.file(storage, name))


@caught_by("C-070")
class FreshVolumesAreNotZero(Vault):
    """Promises zeros (sparseinit), but the backend marks fresh space with a pattern."""

    def create(self, storage: Store, name: str, size: int) -> None:
        super().create(storage, name, size)
        with self.file(storage, name).open("r+b") as file:
            file.seek(min(size, 4 << 20) // 2)
            file.write(b"fresh")


@caught_by("C-067")
class RenameLeavesTheOldName(Vault):
    """Renames by copying, and the old volume stays."""

    def rename(self, storage: Store, name: str, new_name: str) -> None:
        self.copy(self.file(storage, name), self.file(storage, new_name))


@caught_by("C-067")
class RenameOverwrites(Vault):
    """Renames over a volume that has the name already."""

    def rename(self, storage: Store, name: str, new_name: str) -> None:
        os.replace(self.file(storage, name), self.file(storage, new_name))


@caught_by("C-067")
class RenameLosesData(Vault):
    """Renames by making an empty volume of the same size."""

    def rename(self, storage: Store, name: str, new_name: str) -> None:
        self.create(storage, new_name, self.size(storage, name) or 0)
        self.delete(storage, name)


@caught_by("C-044")
class TemplateKeepsItsName(Vault):
    """Turns a volume into a template without giving it a base name."""

    def create_base(self, storage: Store, volname: str) -> str:
        return volname


@caught_by("C-064")
class FreeingTheBaseTakesTheClones(Vault):
    """Clones don't say in their name what they depend on, and go away with their base."""

    def clone(self, storage: Store, name: str, snapname: str | None, new_name: str) -> bool:
        super().clone(storage, name, snapname, new_name)
        return False

    def volume(self, file: Any) -> Any:
        found = super().volume(file)
        return type(found)(found.name, found.size)

    def delete(self, storage: Store, name: str) -> None:
        folder = self.file(storage, name).parent
        for note in folder.glob(".base-of-*"):
            if note.read_text() == name:
                (folder / note.name.removeprefix(".base-of-")).unlink()
                note.unlink()
        super().delete(storage, name)


@caught_by("C-045")
class CloneNamesAnotherBase(Vault):
    """The name of a linked clone names a base image that isn't its own."""

    def clone_image(
        self, storage: Store, volname: str, vmid: int, snapname: str | None = None
    ) -> str:
        found = super().clone_image(storage, volname, vmid, snapname)
        other = "base-1-disk-0"
        self.file(storage, f".base-of-{found.rpartition('/')[2]}").write_text(other)
        return f"{other}/{found.rpartition('/')[2]}"


@caught_by("C-068")
class CloneSharesItsData(Vault):
    """A clone is another name for the same data."""

    def copy(self, source: Any, target: Any) -> None:
        os.link(source, target)


@caught_by("C-068")
class CloneIsEmpty(Vault):
    """A clone has the size of its base, and none of its data."""

    def copy(self, source: Any, target: Any) -> None:
        with target.open("xb") as file:
            file.truncate(source.stat().st_size)


@caught_by("C-069")
class PromisesSnapshots(Vault):
    """Says it can take snapshots, and can't."""

    def volume_snapshot(self, storage: Store, volname: str, snapname: str) -> None:
        raise NotSupported("no snapshots with this licence")


@caught_by("C-069")
class PromisesClones(Vault):
    """Says that templates can be cloned, and can't."""

    def clone_image(
        self, storage: Store, volname: str, vmid: int, snapname: str | None = None
    ) -> str:
        raise NotSupported("no clones with this licence")


@caught_by("C-069")
class DeniesTemplates(Vault):
    """Says no to templates, and makes them all the same."""

    rules: ClassVar[Rules] = {
        "volume_has_feature": (
            Rule(True, {"feature": ["copy", "rename", "sparseinit"], "state": "current"}),
            Rule(True, {"feature": "snapshot", "state": "current"}),
            Rule(True, {"feature": ["copy", "clone"], "state": "snap"}),
        )
    }


@caught_by("C-069")
class ClaimsToCopySnapshots(Vault):
    """Says that snapshots can be copied, and can't attach them."""

    def attach(self, storage: Store, name: str, snapname: str | None, options: Any) -> None:
        if snapname:
            raise NotSupported("snapshots can't be attached")
        super().attach(storage, name, snapname, options)


@caught_by("C-103")
class SharedScratchList(Vault):
    """Collects a listing in an attribute, which calls at the same time share."""

    def volumes(self, storage: Store) -> Any:
        self.found: list[Any] = []
        for volume in super().volumes(storage):
            time.sleep(0.002)
            self.found.append(volume)
        return list(self.found)
