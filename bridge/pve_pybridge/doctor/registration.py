# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading PVE's storage plugins, as every PVE process does: what it says, and what it registers.

The shim is the judge of manifests and collisions; nothing of its rules is repeated here.
"""

from __future__ import annotations

from ..pve import NoPve
from .findings import Report, fault, warning
from .node import Node

_MODULES = {"Data::MessagePack": "libdata-messagepack-perl", "IO::FDPass": "libio-fdpass-perl"}
"""What the shim needs with the first call, and the Debian package that has it."""


def check(node: Node, report: Report) -> None:
    """PVE loads, silently, and every manifest became a type."""
    try:
        seen = node.pve()
    except NoPve as err:
        report.summary = f"not tried: {err}"
        return
    facts = seen.facts
    if not facts["shim"]:
        what = "PVE did not load PVE::Storage::Custom::PyBridge"
        said = f": {seen.said[-1]}" if seen.said else ""
        report.add([fault("PVE", what + said, "install the package pve-pybridge again")])
        return
    report.summary = f"{len(facts['ours'])} of {len(facts['types'])} types in Python"
    for name, package in _MODULES.items():
        if facts["modules"].get(name) is None:
            report.add([fault("Perl", f"the module {name} is missing", f"apt install {package}")])
    explained: set[str] = set()
    for file in node.manifest_files():
        lines = seen.of(file.stem)
        explained.update(lines)
        mend = f"choose other names in the plugin, or 'pve-pybridge disable {file.stem}'"
        report.add(fault(file, line.removeprefix("pve-pybridge: "), mend) for line in lines)
        if file.stem not in facts["ours"] and not lines:
            report.add([fault(file, "PVE did not register this type", mend)])
    report.add(
        warning("PVE", f"every PVE command prints: {line}", "ask the author of that plugin")
        for line in dict.fromkeys(seen.said)
        if line not in explained
    )
