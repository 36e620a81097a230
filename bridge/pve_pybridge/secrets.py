# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Secrets of storages: one root-only file per storage and property, in the cluster file system.

``/etc/pve/priv/storage/<storeid>.<property>``: PVE replicates it to all nodes and lets only root
read it (contract section 6).  PVE's own four keep PVE's suffixes, as its storages use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from . import atomic
from .config import Secret
from .errors import StorageError
from .paths import etc_pve

LEGACY: Final = {
    "password": "pw",
    "encryption-key": "enc",
    "master-pubkey": "master.pem",
    "keyring": "keyring",
}
"""The only properties hosts before APIVER 11 treat as sensitive, with the file suffix they get."""


def path(storeid: str, property_: str, etc: Path | None = None) -> Path:
    """The file that holds the secret, in *etc* instead of /etc/pve."""
    return (etc or etc_pve()) / "priv" / "storage" / f"{storeid}.{LEGACY.get(property_, property_)}"


def read(storeid: str, property_: str) -> Secret | None:
    """The secret, or None when none is stored."""
    try:
        stored = path(storeid, property_).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise StorageError(
            f"can't read '{property_}' of storage '{storeid}': {err.strerror}"
        ) from None
    return Secret(stored.decode("utf-8", "surrogateescape"))


def apply(storeid: str, changes: Mapping[str, str | None]) -> dict[str, str | None]:
    """Store each secret, delete those given as None; returns what was there before."""
    before: dict[str, str | None] = {}
    for property_, value in changes.items():
        try:
            old = read(storeid, property_)
            _put(path(storeid, property_), value)
        except (OSError, StorageError) as err:
            apply(storeid, before)  # the failed one is as it was
            why = err.strerror if isinstance(err, OSError) else err
            raise StorageError(f"can't store secrets of storage '{storeid}': {why}") from None
        before[property_] = old
    return before


def remove_all(storeid: str, properties: Iterable[str]) -> None:
    """Forget every secret of a storage."""
    apply(storeid, dict.fromkeys(properties))


def _put(target: Path, value: str | None) -> None:
    if value is None:
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(target, value, 0o600)
