# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""raw+size streams to and from the attached device, which both directions attach themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import streams
from ..config import ConfigT
from ..errors import StorageError
from ..model import Bytes
from ..plugin import implemented
from ..storage import Storage
from .snapshots import Snapshots


class Transfer(Snapshots[ConfigT]):
    """volume_export and volume_import."""

    def volume_export(
        self,
        storage: Storage[ConfigT],
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
    ) -> None:
        """Write a volume, or one of its snapshots; a mapping made for it is undone (C-095)."""
        self._check_stream("export", format, base_snapshot, with_snapshots)
        name = self.parse_volname(volname).name
        with self._device(storage, name, snapshot) as device:
            size = device_size(device)
            streams.write_header(storage, fh, size)
            command = ["dd", f"if={device}", "bs=1M", "iflag=fullblock", "status=progress"]
            storage.run(command, stdout=fh, log_stderr=True)

    def volume_import(
        self,
        storage: Storage[ConfigT],
        fh: int,
        volname: str,
        format: str,
        snapshot: str | None = None,
        base_snapshot: str | None = None,
        with_snapshots: bool | Sequence[str] = False,
        allow_rename: bool = False,
    ) -> str:
        """Make a volume from a stream; PVE has activated nothing here (contract 7.6)."""
        self._check_stream("import", format, base_snapshot, with_snapshots)
        if implemented(type(self), "activate_storage"):
            self.activate_storage(storage)
        vmid, name = self._import_name(storage, volname, allow_rename)
        size = streams.read_header(storage, fh)
        new = self.alloc_image(storage, vmid, "raw", name, Bytes(size))
        with self._device(storage, new, None) as device:
            # sparse writing leaves out zeros: right only where nothing else can be read there
            sparse = ",sparse" if self.reads_zero else ""
            how = ["bs=1M", "iflag=fullblock", f"conv=notrunc,fsync{sparse}"]  # it may be a file
            command = ["dd", f"of={device}", *how]
            done = storage.run(command, stdin=fh, log_stderr=True, env={"LC_ALL": "C"})
            received = dd_bytes(done.stderr)
            if received < size:
                raise StorageError(f"import: stream ended after {received} of {size} bytes")
        return new

    def _check_stream(
        self,
        direction: str,
        format: str,
        base_snapshot: str | None,
        with_snapshots: bool | Sequence[str],
    ) -> None:
        """raw+size is all there is: without snapshots, and not relative to one."""
        if format != "raw+size" or base_snapshot is not None or with_snapshots:
            raise StorageError(f"volume {direction} format {format} not available for {self.type}")

    def _import_name(
        self, storage: Storage[ConfigT], volname: str, allow_rename: bool
    ) -> tuple[int, str | None]:
        """Owner and name of a volume to import; None: any free name, as this one is taken."""
        wanted = self.parse_volname(volname)
        if wanted.vmid is None:
            raise StorageError(f"can't import '{volname}': its name has no owner")
        if self.size(storage, wanted.name) is None:
            return wanted.vmid, wanted.name
        if not allow_rename:
            raise StorageError(f"volume '{volname}' already exists")
        storage.log(f"volume '{volname}' already exists - importing with a different name")
        return wanted.vmid, None

    @contextmanager
    def _device(self, storage: Storage[ConfigT], name: str, snapname: str | None) -> Iterator[str]:
        """The device, attached for as long as it takes unless it was before."""
        if self.attached(storage, name, snapname) is not None:
            yield self.device(storage, name, snapname)
            return
        self.attach(storage, name, snapname, {})
        try:
            yield self.device(storage, name, snapname)
        finally:
            self.detach(storage, name, snapname)


def device_size(path: str) -> int:
    """Bytes of a block device or file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise StorageError(f"can't open '{path}': {err.strerror}") from None


def dd_bytes(report: bytes) -> int:
    """How much dd copied, by its last line."""
    for line in reversed(report.decode("utf-8", "replace").splitlines()):
        first = line.split()[:1]
        if "copied" in line and first and first[0].isdigit():
            return int(first[0])
    raise StorageError("dd didn't say how much it copied")
