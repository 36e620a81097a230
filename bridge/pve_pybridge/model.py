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
    """Capacity in bytes.  The shim turns it into PVE's (total, avail, used, active)."""

    total: ByteCount
    """Size of the storage in bytes."""
    avail: ByteCount
    """Bytes that can still be stored."""
    used: ByteCount
    """Bytes that are taken."""
    active: bool = True
    """Whether the storage can be used now."""

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
    size: ByteCount | None = None
    """In bytes."""
    approximate_size: ByteCount | None = None
    """In bytes."""
    vmid: int | None = None
    used: ByteCount | None = None
    """Bytes it takes on the storage."""
    parent: str | None = None
    ctime: Timestamp | None = None
    """When it was made, in seconds since 1970."""
    name: str | None = None
    content: str | None = None
    subtype: str | None = None
    notes: str | None = None
    protected: bool | None = None
    encrypted: str | None = None
    verification: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """Answer of ``volume_size_info``: size in bytes; in scalar context PVE gets only that."""

    size: ByteCount
    """In bytes."""
    format: str = "raw"
    used: ByteCount | None = None
    """Bytes it takes on the storage."""
    parent: str | None = None
    ctime: Timestamp | None = None
    """When it was made, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """One snapshot in ``volume_snapshot_info``.

    ``id`` and ``timestamp`` serve replication; the others volume chains, whose entry ``current``
    is the live image.  ``virtual_size`` is bytes (read by PVE since APIVER 15).
    """

    id: str | None = None
    timestamp: Timestamp | None = None
    file: str | None = None
    volname: str | None = None
    parent: str | None = None
    child: str | None = None
    order: int | None = None
    virtual_size: ByteCount | None = None


@dataclass(frozen=True, slots=True)
class PruneEntry:
    """One backup in the answer of ``prune_backups``; mark: keep remove protected renamed."""

    volname: str
    ctime: Timestamp
    type: str
    mark: str
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
    apiage: int = 4
    hints: frozenset[str] = frozenset()
    pid: int = 0
    command: str = ""
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
