# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What plugins receive and return, as Python types.  Sizes are bytes, times seconds since epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NewType, TypeAlias

Bytes = NewType("Bytes", int)
"""A size in bytes: what every size that a plugin gets is."""
ByteCount: TypeAlias = Bytes | int
"""A size in bytes that a plugin gives; any int will do."""
Seconds = NewType("Seconds", float)
"""A time in seconds, maybe fractional."""
UnixTime = NewType("UnixTime", int)
"""Seconds since 1970."""
Timestamp: TypeAlias = UnixTime | int
"""A point in time that a plugin gives; any int will do, ``int(stat.st_mtime)`` for one."""


@dataclass(frozen=True, slots=True)
class VolumeName:
    """What a volume name says by itself (PVE's ``parse_volname``, seven values).

    ``vtype``: images iso vztmpl backup snippets import.  ``base_name``/``base_vmid`` are set for
    linked clones, ``is_base`` for templates.
    """

    vtype: str
    name: str
    vmid: int | None = None
    base_name: str | None = None
    base_vmid: int | None = None
    is_base: bool = False
    format: str = "raw"


@dataclass(frozen=True, slots=True)
class Status:
    """Answer of ``status``, in bytes: PVE's (total, avail, used, active)."""

    total: ByteCount
    """Bytes in all; used + avail may be less (space that only root may use)."""
    avail: ByteCount
    """Bytes that can still be allocated."""
    used: ByteCount
    """Bytes."""
    active: bool = True
    """Usable on this node; False greys the storage out."""

    @classmethod
    def of(cls, fs: os.statvfs_result) -> Status:
        """The file system that ``os.statvfs`` told of; what only root may use isn't available."""
        total, free = fs.f_blocks * fs.f_frsize, fs.f_bfree * fs.f_frsize
        return cls(total=total, avail=fs.f_bavail * fs.f_frsize, used=total - free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One entry of ``list_images`` or ``list_volumes``; the host prefixes the storage ID.

    ``size`` in bytes, or ``approximate_size`` (PVE 9.1.5 and later) where the exact one is costly.
    ``content`` and everything below it matter for ``list_volumes`` only.
    """

    volname: str
    format: str
    """raw qcow2 vmdk subvol; for backups and other files their suffix (tar.zst, iso …)."""
    size: ByteCount | None = None
    """Bytes as a guest sees them."""
    approximate_size: ByteCount | None = None
    """Bytes, instead of ``size``."""
    vmid: int | None = None
    """The guest it belongs to."""
    used: ByteCount | None = None
    """Bytes it takes in the backend."""
    parent: str | None = None
    """Volume name of the base image of a linked clone."""
    ctime: Timestamp | None = None
    """Seconds since the epoch."""
    name: str | None = None
    """How the backend calls it, where that differs."""
    content: str | None = None
    """Content type, required in ``list_volumes``."""
    subtype: str | None = None
    """Of a backup: qemu or lxc."""
    notes: str | None = None
    protected: bool | None = None
    """It must not be pruned or removed."""
    encrypted: str | None = None
    """Fingerprint of the key, or "1"."""
    verification: Mapping[str, object] | None = None
    """State of the last check of a backup: ``state`` (ok, failed) and ``upid``."""


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """Answer of ``volume_size_info``, in bytes; in scalar context PVE gets only the size."""

    size: ByteCount
    """Bytes as a guest sees them, exactly those of the active device."""
    format: str = "raw"
    used: ByteCount | None = None
    """Bytes it takes in the backend."""
    parent: str | None = None
    """Path of the backing file of a chain."""
    ctime: Timestamp | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """One snapshot in ``volume_snapshot_info``.

    ``id`` and ``timestamp`` serve replication; the others volume chains, whose entry ``current``
    is the live image.  ``virtual_size`` is bytes (read by PVE since APIVER 15).
    """

    id: str | None = None
    """Never given to another snapshot, even one of the same name."""
    timestamp: Timestamp | None = None
    """Seconds since the epoch."""
    file: str | None = None
    """Path of this link of a chain."""
    volname: str | None = None
    parent: str | None = None
    """Snapshot that this one builds on."""
    child: str | None = None
    order: int | None = None
    """Place in the chain, from 0."""
    virtual_size: ByteCount | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True)
class PruneEntry:
    """One backup in the answer of ``prune_backups``; mark: keep remove protected renamed."""

    volname: str
    ctime: Timestamp
    """Seconds since the epoch."""
    type: str
    """qemu, lxc or unknown."""
    mark: str
    """keep, remove, protected or renamed (a name that doesn't say guest and time)."""
    vmid: int | None = None


@dataclass(frozen=True, slots=True)
class Cleanup:
    """Returned by ``free_image``: PVE runs ``free_image_cleanup(data)`` later, in its own task.

    The volume's name must be reusable at once.  *data* is plain (str, int, bool, list, dict).
    """

    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Host:
    """What the calling PVE process said of itself in its hello."""

    apiver: int = 13
    """PVE's storage interface, 10 to 15."""
    apiage: int = 4
    """How many versions before it the host still takes."""
    hints: frozenset[str] = frozenset()
    """Names of the hints it knows; none before APIVER 13."""
    pid: int = 0
    command: str = ""
    """What the process calls itself; PVE's task workers put the task's ID there."""
    task: str = ""


class Hints(Mapping[str, object]):
    """The hints of ``activate_volume``/``map_volume`` (APIVER 13): the desired state at VM start.

    A mapping of everything given, known or not.  The known ones are attributes that are None when
    PVE didn't give them, which is not the same as False.
    """

    __slots__ = ("_given", "_host")

    def __init__(self, given: Mapping[str, object] | None = None, host: Host | None = None):
        self._given = dict(given or {})
        self._host = host or Host()

    def _flag(self, name: str) -> bool | None:
        value = self._given.get(name)
        return None if value is None else bool(value)

    @property
    def guest_is_windows(self) -> bool | None:
        """The volume belongs to a Windows guest."""
        return self._flag("guest-is-windows")

    @property
    def plugin_may_deactivate_volume(self) -> bool | None:
        """The volume may be taken down on this node and brought up again to apply a hint."""
        return self._flag("plugin-may-deactivate-volume")

    def supported(self, name: str) -> bool:
        """Whether the *host* knows the hint (PVE's ``is_hint_supported``), given or not."""
        return name in self._host.hints

    def __getitem__(self, name: str) -> object:
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"Hints({self._given!r})"
