# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Release of shim and Python, versions of manifests, wire and method table, PVE's storage API."""

from __future__ import annotations

from collections.abc import Iterator

from ..codec import WIRE_VERSION
from ..installed import Installed
from ..manifest import MANIFEST_VERSION
from ..methods import TABLE_VERSION
from ..pve import NoPve
from ..version import SHIM_VERSION, __version__
from .findings import Finding, Report, fault, warning
from .node import Node

_SAME = "install the same release of all pve-pybridge packages"


def check(node: Node, report: Report) -> None:
    """Everything is of one release, or can live with each other."""
    report.summary = f"release {__version__}, wire {WIRE_VERSION}, table {TABLE_VERSION}"
    for manifest in node.manifests():
        report.add(_manifest(manifest))
    try:
        facts = node.pve().facts
    except NoPve:
        return
    if not facts["shim"]:
        return  # the check "registration" tells
    report.summary += f", shim {facts['version']}, storage API {facts['apiver']}"
    shim = facts["shim"]
    if facts["version"] != SHIM_VERSION:
        what = f"it is version {facts['version']}, this release goes with {SHIM_VERSION}"
        report.add([fault(shim, what, _SAME)])
    if facts["wire"] != WIRE_VERSION:
        report.add([fault(shim, f"it speaks wire {facts['wire']}, not {WIRE_VERSION}", _SAME)])
    if not facts["minimum"] <= facts["apiver"] <= facts["maximum"]:
        what = (
            f"PVE's storage API is {facts['apiver']}, "
            f"this release knows {facts['minimum']} to {facts['maximum']}"
        )
        report.add([warning(shim, what, "look for a newer release of pve-pybridge")])


def _manifest(manifest: Installed) -> Iterator[Finding]:
    ours = {"manifest": MANIFEST_VERSION, "table": TABLE_VERSION, "wire": WIRE_VERSION}
    for key, known in ours.items():
        theirs = manifest.data.get(key)
        if not isinstance(theirs, int):
            yield fault(manifest.file, f"it has no {key} version", _anew(manifest))
        elif theirs > known:
            yield fault(
                manifest.file,
                f"it is of {key} version {theirs}, this release knows up to {known}",
                "update pve-pybridge, or write the manifest with this release",
            )
        elif key == "wire" and theirs < known:
            yield warning(manifest.file, f"it is of wire version {theirs}", _anew(manifest))


def _anew(manifest: Installed) -> str:
    return f"pve-pybridge enable {manifest.data.get('plugin') or 'FILE'}"
