# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The systemd units of each type: known, enabled, listening, not failed."""

from __future__ import annotations

from .. import units
from ..errors import StorageError
from .findings import Report, fault, warning
from .node import Node
from .run import beside_each_other


def check(node: Node, report: Report) -> None:
    """Only where systemd runs: elsewhere plugins are served in the foreground."""
    if not units.systemd_runs():
        report.summary = "systemd does not run here"
        return
    types = [file.stem for file in node.manifest_files()]
    report.summary = f"types: {len(types)}"

    def one(type_: str) -> None:
        try:
            _units(type_, bool(node.storages(type_)), report)
        except StorageError as err:
            report.add([fault(units.socket_unit(type_), str(err), "see systemctl status")])

    beside_each_other(one, types)


def _units(type_: str, used: bool, report: Report) -> None:
    unit, service = units.socket_unit(type_), units.service_unit(type_)
    found = units.show(unit, "LoadState", "ActiveState", "UnitFileState")
    tell = fault if used else warning
    if found.get("LoadState") != "loaded":
        what = f"systemd says '{found.get('LoadState')}'"
        mend = "install the package pve-pybridge again; systemctl daemon-reload"
        report.add([tell(unit, what, mend)])
        return
    if found.get("ActiveState") != "active":
        what = f"it doesn't listen: {found.get('ActiveState')}"
        report.add([tell(unit, what, f"systemctl enable --now {unit}; journalctl -u {unit}")])
    elif not found.get("UnitFileState", "").startswith("enabled"):
        what = f"it listens, but is {found.get('UnitFileState')}: not after a reboot"
        report.add([warning(unit, what, f"systemctl enable {unit}")])
    found = units.show(service, "ActiveState", "Result")
    if found.get("ActiveState") == "failed":
        what = f"the server failed: {found.get('Result')}"
        mend = f"journalctl -u {service}; then systemctl reset-failed {service}"
        report.add([fault(service, what, mend)])
