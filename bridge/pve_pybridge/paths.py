# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Where things are: the directories of the bridge, each movable by the environment.

The shim reads the same variables, so that a checkout can run beside an installed bridge.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VARIABLES: Final = {
    "PVE_PYBRIDGE_ETC_PVE": ("/etc/pve", "the cluster file system"),
    "PVE_PYBRIDGE_RUN": ("/run/pve-pybridge", "where the sockets are; mode 0700"),
    "PVE_PYBRIDGE_MANIFESTS": ("/etc/pve-pybridge/plugins.d", "the manifests of all types"),
    "PVE_PYBRIDGE_BACKUPS": ("/var/backups/pve-pybridge", "for sections of storage.cfg"),
    "PVE_PYBRIDGE_STATE": ("/var/lib/pve-pybridge", "what is remembered beyond a reboot"),
    "PVE_PYBRIDGE_SYSTEMD": ("/run/systemd/system", "there while systemd manages the machine"),
    "PVE_PYBRIDGE_PERL_DIR": ("/usr/share/perl5", "where the shim is"),
    "PVE_PYBRIDGE_PERL_OPTIONS": ("", "options of the Perl that loads PVE's modules, as -I"),
}
"""Variable → its default, and what it is; the manual page has this list."""


def _path(variable: str) -> Path:
    return Path(os.environ.get(variable, VARIABLES[variable][0]))


def etc_pve() -> Path:
    """The cluster file system."""
    return _path("PVE_PYBRIDGE_ETC_PVE")


def run_dir() -> Path:
    """Where the sockets are; mode 0700.  Without root, on a developer's machine, it is private."""
    if os.geteuid() == 0 or "PVE_PYBRIDGE_RUN" in os.environ:
        return _path("PVE_PYBRIDGE_RUN")
    own = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(own) if own else Path.home() / ".cache") / "pve-pybridge"


def manifests_dir() -> Path:
    """Where the manifests of all enabled types are."""
    return _path("PVE_PYBRIDGE_MANIFESTS")


def laptop_dir() -> Path:
    """What stands in for a node's configuration where ``serve --storage`` made a storage."""
    return run_dir() / "laptop"


def socket_path(type_: str) -> Path:
    """The socket of the server for storage type *type_*."""
    return run_dir() / f"{type_}.sock"


def backup_dir() -> Path:
    """Where sections of storage.cfg are saved before their type goes."""
    return _path("PVE_PYBRIDGE_BACKUPS")


def state_dir() -> Path:
    """What the bridge remembers beyond a reboot: see record.py."""
    return _path("PVE_PYBRIDGE_STATE")


def systemd_dir() -> Path:
    """There while systemd manages the machine (sd_booted)."""
    return _path("PVE_PYBRIDGE_SYSTEMD")


def perl_dir() -> Path:
    """Where the shim is installed."""
    return _path("PVE_PYBRIDGE_PERL_DIR")


def perl_options() -> list[str]:
    """Options of the Perl that loads PVE's modules: none on a node, ``-I…`` for a checkout."""
    return os.environ.get("PVE_PYBRIDGE_PERL_OPTIONS", "").split()
