# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The plugin servers: each answers, is of this release, and runs the plugin as it is on disk."""

from __future__ import annotations

from ..errors import StorageError
from ..installed import Installed
from ..version import __version__
from .findings import Report, fault, warning
from .node import Node
from .run import beside_each_other


def check(node: Node, report: Report) -> None:
    """Ask each one that should be there; idle ones without a storage are left asleep."""
    asked = [one for one in node.manifests() if node.expected(one.type)]
    idle = len(node.manifests()) - len(asked)
    report.summary = f"{len(asked)} answered, {idle} idle"
    beside_each_other(lambda manifest: _server(node, manifest, report), asked)


def _server(node: Node, manifest: Installed, report: Report) -> None:
    where = f"server of type '{manifest.type}'"
    service = f"pve-pybridge@{manifest.type}.service"
    renew = f"systemctl reload {service}"  # which cuts no call
    try:
        account = node.server(manifest.type)
    except StorageError as err:
        mend = f"journalctl -u pve-pybridge@{manifest.type}; systemctl restart {service}"
        report.add([fault(where, str(err), mend)])
        return
    if account.get("version") != __version__:
        what = f"it still runs release {account.get('version')}, installed is {__version__}"
        report.add([warning(where, what, renew)])
    try:
        file = manifest.plugin_file
        changed = file and file.stat().st_ctime > account["since"] + 1
    except (OSError, StorageError):  # the check of manifests tells
        return
    if changed:
        report.add([warning(where, f"{file} changed since it was started", renew)])
