# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Every statement and what the suite does about it: a function, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .checks import (
    activation,
    backups,
    dispatch,
    hooks,
    images,
    listing,
    loading,
    names,
    qemu,
    snapshots,
    storages,
    transfer,
    volumes,
)
from .subject import Subject

Check = Callable[[Subject], None]

_MODULES: Final = (
    *(loading, dispatch, storages, names, listing, volumes, images),
    *(activation, qemu, snapshots, transfer, hooks, backups),
)
CHECKS: Final[Mapping[str, Check]] = {
    number: check for module in _MODULES for number, check in module.CHECKS.items()
}
"""Number → the function that tries it."""
LAST: Final[Mapping[str, Check]] = {**dispatch.LAST, **images.LAST, **hooks.LAST}
"""The same for statements about the whole run."""

_SHIM: Final = "about the shim, which is the same for every plugin"
_HOST: Final = "about the server, which is the same for every plugin"
_NODE: Final = "about PVE's side of a node"
ELSEWHERE: Final[Mapping[str, str]] = {
    "C-002": _SHIM,
    "C-003": _SHIM,
    "C-004": _SHIM,
    "C-005": _SHIM,
    "C-006": _SHIM,
    "C-007": _SHIM,
    "C-008": _SHIM,
    "C-012": _SHIM,
    "C-021": _HOST,
    "C-022": _SHIM,
    "C-024": _SHIM,
    "C-026": _SHIM,
    "C-027": _SHIM,
    "C-030": _SHIM,
    "C-031": _SHIM,
    "C-032": _SHIM,
    "C-034": _SHIM,
    "C-040": _NODE,
    "C-102": "about backup providers, which plugins of the bridge can't be",
    "C-104": "about two releases of the bridge on one cluster",
}
"""Number → whom it is about instead; the project's own tests prove these (docs/checklist.md)."""
