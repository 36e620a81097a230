# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The table of checks, in the order in which an administrator reads them."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from .findings import Check, Report
from .node import Node

TITLES: Final = {
    "versions": "release of shim and Python, versions of manifests, wire and method table",
    "registration": "PVE loads with the shim, Perl modules are there, nothing collides",
    "python": "every interpreter that serves a plugin runs the bridge",
    "manifests": "whole, written by root alone, and what the plugin's class says today",
    "sockets": "run directory and sockets are there, root's alone, with room",
    "units": "systemd units are known, enabled, listening, not failed",
    "servers": "each server answers, is of this release and runs the plugin as it is on disk",
    "status": "each storage answers a real call; when PVE last got its figures",
    "storages": "every section of storage.cfg has a registered type",
    "secrets": "secrets are root's alone, there when needed, not in storage.cfg",
    "processes": "no running PVE process has an older shim or manifest",
}
"""Name of a check → what it makes sure of."""

_MODULES: Final = {"secrets": "secretfiles", "units": "unitstate"}


def _check(name: str) -> Check:
    """The check of a name; its module is imported in the check's own thread and time."""

    def check(node: Node, report: Report) -> None:
        module = import_module(f"{__package__}.{_MODULES.get(name, name)}")
        module.check(node, report)

    return check


CHECKS: Final[dict[str, Check]] = {name: _check(name) for name in TITLES}
"""Name → function."""
