# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about streams."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pve_pybridge import Bytes, Rule, StorageError, streams

from . import caught_by
from .vault import Rules, Store, Vault


class Exports(Vault):
    """Something to derive from: the stream, in two parts."""

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
        file = self.file(storage, self.parse_volname(volname).name, snapshot)
        size = file.stat().st_size
        streams.write(storage, fh, self.header(size))
        self.data(storage, fh, str(file))

    def header(self, size: int) -> bytes:
        return size.to_bytes(8, "little")

    def data(self, storage: Store, fh: int, path: str) -> None:
        storage.run(["dd", f"if={path}", "bs=1M"], stdout=fh)


@caught_by("C-091")
class HeaderBigEndian(Exports):
    """Writes the size in network byte order."""

    def header(self, size: int) -> bytes:
        return size.to_bytes(8, "big")


@caught_by("C-091")
class HeaderInKib(Exports):
    """Writes the size in KiB."""

    def header(self, size: int) -> bytes:
        return (size // 1024).to_bytes(8, "little")


@caught_by("C-091")
class NoHeader(Exports):
    """Writes the data only, without the size before it."""

    def header(self, size: int) -> bytes:
        return b""


@caught_by("C-094")
class ChattyExport(Exports):
    """Lets a command's messages into the stream."""

    def data(self, storage: Store, fh: int, path: str) -> None:
        storage.run(["sh", "-c", 'cat "$1"; echo 4 MiB copied', "sh", path], stdout=fh)


@caught_by("C-094")
class StopsEarly(Exports):
    """Leaves out the zeros at the volume's end."""

    def data(self, storage: Store, fh: int, path: str) -> None:
        storage.run(["dd", f"if={path}", "bs=64k", "count=20"], stdout=fh)


@caught_by("C-023")
class ExportCantBeCancelled(Exports):
    """Waits for a command of its own, which nobody can end."""

    def data(self, storage: Store, fh: int, path: str) -> None:
        subprocess.run(["dd", f"if={path}", "bs=1M"], stdout=fh, check=True)


@caught_by("C-092")
class HalfAStreamIsEnough(Vault):
    """Takes the end of the stream for the end of the volume, whatever the header says."""

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
        vmid, name = self._import_name(storage, volname, allow_rename)
        size = streams.read_header(storage, fh)
        new = self.alloc_image(storage, vmid, "raw", name, Bytes(size))
        target = self.file(storage, new)
        storage.run(["dd", f"of={target}", "bs=1M", "conv=notrunc"], stdin=fh)
        return new


@caught_by("C-092")
class FailedImportStays(Vault):
    """A failed import leaves its half of a volume behind."""

    def _discard(self, storage: Store, name: str) -> None:
        storage.warn(f"'{name}' is incomplete")


@caught_by("C-092")
class ReadsAhead(Vault):
    """Reads the header with more than it needs, and the rest is missing from the volume."""

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
        vmid, name = self._import_name(storage, volname, allow_rename)
        size = int.from_bytes(os.read(fh, 4096)[:8], "little")
        new = self.alloc_image(storage, vmid, "raw", name, Bytes(size))
        target = self.file(storage, new)
        storage.run(["dd", f"of={target}", "bs=1M", "conv=notrunc"], stdin=fh)
        return new


@caught_by("C-093")
class ImportIgnoresTheName(Vault):
    """Imports under a name of its own choice, although the asked one is free."""

    def _import_name(
        self, storage: Store, volname: str, allow_rename: bool
    ) -> tuple[int, str | None]:
        return super()._import_name(storage, volname, allow_rename)[0], None


@caught_by("C-093")
class ImportOverwrites(Vault):
    """Imports over a volume that has the name already."""

    def _import_name(
        self, storage: Store, volname: str, allow_rename: bool
    ) -> tuple[int, str | None]:
        parsed = self.parse_volname(volname)
        if self.size(storage, parsed.name) is not None:
            self.delete(storage, parsed.name)
        assert parsed.vmid is not None
        return parsed.vmid, parsed.name


@caught_by("C-093")
class ImportNeverRenames(Vault):
    """Refuses a taken name even where another may be chosen."""

    def _import_name(
        self, storage: Store, volname: str, allow_rename: bool
    ) -> tuple[int, str | None]:
        return super()._import_name(storage, volname, False)


@caught_by("C-093")
class ImportRenamesUnasked(Vault):
    """Chooses another name even where that isn't allowed."""

    def _import_name(
        self, storage: Store, volname: str, allow_rename: bool
    ) -> tuple[int, str | None]:
        return super()._import_name(storage, volname, True)


@caught_by("C-093")
class ImportAnswersTheAskedName(Vault):
    """Imports under another name and answers with the one that was asked for."""

    def volume_import(self, storage: Store, fh: int, volname: str, *args: Any, **more: Any) -> str:
        super().volume_import(storage, fh, volname, *args, **more)
        return volname


@caught_by("C-095")
class ExportLeavesItsMapping(Vault):
    """Attaches a snapshot for the export, and forgets it when the reader goes away."""

    @contextmanager
    def _device(self, storage: Store, name: str, snapname: str | None) -> Iterator[str]:
        if self.attached(storage, name, snapname) is None:
            self.attach(storage, name, snapname, {})
        yield self.device(storage, name, snapname)
        self.detach(storage, name, snapname)


@caught_by("C-017")
class FormatsWithAHole(Vault):
    """Lists None among the stream formats."""

    rules: ClassVar[Rules] = {"volume_export_formats": (Rule(["raw+size", None]),)}


@caught_by("C-069")
class PromisesClonesOfSnapshots(Vault):
    """Says that snapshots can be cloned, and only templates can."""

    def clone(self, storage: Store, name: str, snapname: str | None, new_name: str) -> bool:
        if snapname:
            raise StorageError("snapshots can't be cloned")
        return super().clone(storage, name, snapname, new_name)
