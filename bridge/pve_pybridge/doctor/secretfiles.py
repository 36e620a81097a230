# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The secrets of our storages: root's alone, there when needed, not in storage.cfg."""

from __future__ import annotations

import os
from pathlib import Path

from .. import secrets
from ..installed import Installed
from ..storagecfg import Section
from .findings import Report, fault
from .node import Node


def check(node: Node, report: Report) -> None:
    """Every declared secret of every storage, on whichever node that is used."""
    count = 0
    for manifest in node.manifests():
        sensitive = manifest.data.get("sensitive")
        for section in node.sections():
            if section.type == manifest.type and isinstance(sensitive, list):
                for name in map(str, sensitive):
                    count += _secret(manifest, section, name, report)
    report.summary = f"{count} secrets"


def _secret(manifest: Installed, section: Section, name: str, report: Report) -> bool:
    file = secrets.path(section.storeid, name)
    where = f"storage '{section.storeid}'"
    if name in section.properties:
        what = f"the secret '{name}' is in storage.cfg, where every user of PVE may see it"
        mend = f"pvesm set {section.storeid} --{name} NEW, then remove that line"
        report.add([fault(where, what, mend)])
    try:
        found = file.stat()
    except FileNotFoundError:
        options = manifest.data.get("options")
        flags = options.get(name, {}) if isinstance(options, dict) else {}
        if not flags.get("optional"):
            what = f"the secret '{name}' is missing: there is no {file}"
            report.add([fault(where, what, f"pvesm set {section.storeid} --{name} SECRET")])
        return False
    for path, at in ((file, found), (file.parent, file.parent.stat())):
        _private(path, at, report)
    return True


def _private(path: Path, found: os.stat_result, report: Report) -> None:
    """The cluster file system keeps /etc/pve/priv so by itself; a copy elsewhere may not."""
    if found.st_uid not in (0, os.geteuid()):
        what = f"it belongs to user {found.st_uid}, not to root"
        report.add([fault(path, what, f"chown root:root {path}")])
    if found.st_mode & 0o077:
        what = f"its mode is {found.st_mode & 0o7777:04o}: others than root may use it"
        new = fault(path, what, f"chmod go= {path}")
        report.add([] if new in report.findings else [new])
