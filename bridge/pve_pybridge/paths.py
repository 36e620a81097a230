# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Where things are: the directories of the bridge, each movable by the environment.

The shim reads the same variables, so that a checkout can run beside an installed bridge.
"""

from __future__ import annotations

import os
from pathlib import Path


def etc_pve() -> Path:
    """The cluster file system."""
    return Path(os.environ.get("PVE_PYBRIDGE_ETC_PVE", "/etc/pve"))


def run_dir() -> Path:
    """Where the sockets are; mode 0700."""
    return Path(os.environ.get("PVE_PYBRIDGE_RUN", "/run/pve-pybridge"))


def manifests_dir() -> Path:
    """Where the manifests of all enabled types are."""
    return Path(os.environ.get("PVE_PYBRIDGE_MANIFESTS", "/etc/pve-pybridge/plugins.d"))


def socket_path(type_: str) -> Path:
    """The socket of the server for storage type *type_*."""
    return run_dir() / f"{type_}.sock"


def backup_dir() -> Path:
    """Where sections of storage.cfg are saved before their type goes."""
    return Path(os.environ.get("PVE_PYBRIDGE_BACKUPS", "/var/backups/pve-pybridge"))


def state_dir() -> Path:
    """What the bridge remembers beyond a reboot: see record.py."""
    return Path(os.environ.get("PVE_PYBRIDGE_STATE", "/var/lib/pve-pybridge"))


def systemd_dir() -> Path:
    """There while systemd manages the machine (sd_booted)."""
    return Path(os.environ.get("PVE_PYBRIDGE_SYSTEMD", "/run/systemd/system"))


def perl_options() -> list[str]:
    """Options of the Perl that loads PVE's modules: none on a node, ``-I…`` for a checkout."""
    return os.environ.get("PVE_PYBRIDGE_PERL_OPTIONS", "").split()


def perl_dir() -> Path:
    """Where the shim is installed."""
    return Path(os.environ.get("PVE_PYBRIDGE_PERL_DIR", "/usr/share/perl5"))
