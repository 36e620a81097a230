# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Sections of storage.cfg whose type nobody registers: PVE drops them at its next write."""

from __future__ import annotations

from ..pve import NoPve
from .findings import Report, fault, warning
from .node import Node


def check(node: Node, report: Report) -> None:
    """All sections, whatever plugin they need, ours or another."""
    sections = node.sections()
    try:
        facts = node.pve().facts
    except NoPve as err:
        report.summary = f"not checked: {err}"
        return
    report.summary = f"{len(sections)} storages, all of known types"
    for line in facts["config_said"]:
        if "unsupported type" not in line:
            report.add([warning("storage.cfg", line, "correct that line")])
    for section in sections:
        if section.type not in facts["types"]:
            what = (
                f"no plugin for type '{section.type}' is loaded on this node: PVE drops the "
                "section, on all nodes, when this node next writes storage.cfg"
            )
            mend = "install or enable its plugin before anything is changed in the storage settings"
            report.add([fault(f"storage '{section.storeid}'", what, mend)])
