# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Each storage of ours, by a real call of ``status``, and when PVE last got its figures.

A server that listens says little: its session with the backend may have expired.
"""

from __future__ import annotations

import time
from typing import Any

from ..errors import StorageError
from ..paths import socket_path
from ..pve import NoPve
from ..storagecfg import Section
from .findings import Report, fault, warning
from .node import Node
from .run import beside_each_other

_SECONDS = 5.0
_OLD_SECONDS = 90
"""pvestatd asks every ten seconds."""


def check(node: Node, report: Report) -> None:
    """All storages that this node shall have."""
    types = {manifest.type for manifest in node.manifests()}
    storages = [section for type_ in sorted(types) for section in node.storages(type_)]
    if not storages:
        report.summary = "no storage of these types on this node"
        return
    try:
        node.pve()
    except NoPve as err:
        report.summary = f"not asked: {err}"
        return
    ages: list[str] = []
    beside_each_other(lambda section: _status(node, section, report, ages), storages)
    report.summary = ", ".join(sorted(ages))


def _status(node: Node, section: Section, report: Report, ages: list[str]) -> None:
    where = f"storage '{section.storeid}'"
    scfg = node.decoded(section.storeid)
    if scfg is None:
        report.add([fault(where, "PVE skips its section in storage.cfg", "see the other findings")])
        return
    try:
        known = node.server(section.type).get("status", {}).get(section.storeid, {})
        answer = _ask(section, scfg)
    except StorageError as err:
        mend = f"journalctl -u pve-pybridge@{section.type}"
        report.add([fault(where, f"it gives no status: {err}", mend)])
        return
    if not answer or not answer[3]:
        mend = "see whether its backend is reachable from this node"
        report.add([warning(where, "it is inactive", mend)])
    ages.append(f"{section.storeid} {_age(known.get('answered'))}")
    if any(process.daemon == "pvestatd" for process in node.processes().values()):
        _last_good(where, known, report)


def _last_good(where: str, known: dict[str, Any], report: Report) -> None:
    if time.time() - (known.get("answered") or 0) < _OLD_SECONDS:
        return
    asked = _age(known.get("asked"))
    what = f"PVE has figures from: {_age(known.get('answered'))}; pvestatd asked: {asked}"
    report.add([warning(where, what, "systemctl status pvestatd; journalctl -u pvestatd")])


def _age(when: float | None) -> str:
    return "not yet" if when is None else f"{max(0.0, time.time() - when):.0f} s ago"


def _ask(section: Section, scfg: dict[str, Any]) -> Any:
    from ..client import Client  # noqa: PLC0415  # needs msgpack

    with Client(section.type, socket_path(section.type), _SECONDS) as client:
        return client.call("status", section.storeid, scfg)
