# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge list``, ``enable`` and ``disable``: the storage types of this node."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import enabling, units
from ..errors import StorageError
from ..installed import files, read
from ..storagecfg import Section, sections
from .show import columns


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``list``, ``enable`` and ``disable``."""
    listing = commands.add_parser("list", help="storage types in Python on this node")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(run=_list)

    enable = commands.add_parser("enable", help="make a local plugin a storage type of this node")
    enable.add_argument("plugin", metavar="FILE", help="the plugin's .py file, or a module name")
    enable.add_argument(
        "--interpreter", metavar="PYTHON", help="absolute path of the Python that shall serve it"
    )
    enable.add_argument("--reload", action="store_true", help="reload PVE's daemons as well")
    enable.set_defaults(run=_enable)

    disable = commands.add_parser("disable", help="take a storage type away from this node")
    disable.add_argument("type", help="the storage type")
    disable.add_argument(
        "--force",
        action="store_true",
        help="even if storages use it or a package owns it; their sections are saved first",
    )
    disable.set_defaults(run=_disable)


# --- list ---------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    """Exit status 1 when a manifest can't be read."""
    rows, flaws = [], []
    used = sections()
    for file in files():
        try:
            rows.append(_row(file, used))
        except StorageError as err:
            flaws.append(str(err))
    if args.json:
        print(json.dumps(rows, indent=1))
    elif rows:
        head = ["TYPE", "VERSIONS", "STATE", "STORAGES", "PLUGIN"]
        print(columns([head, *(_cells(row) for row in rows)]))
    elif not flaws:
        print("no storage type is enabled: pve-pybridge enable FILE")
    for flaw in flaws:
        print(f"pve-pybridge: {flaw}", file=sys.stderr)
    return 1 if flaws else 0


def _row(file: Path, used: Sequence[Section]) -> dict[str, object]:
    found = read(file)
    type_ = found.type
    try:
        state = units.state(type_)
    except StorageError as err:
        state = str(err)
    return {
        "type": type_,
        "manifest": found.data.get("manifest"),
        "wire": found.data.get("wire"),
        "table": found.data.get("table"),
        "plugin": found.plugin,
        "interpreter": found.interpreter,
        "state": state,
        "storages": [s.storeid for s in used if s.type == type_],
    }


def _cells(row: dict[str, object]) -> list[str]:
    storages = row["storages"]
    assert isinstance(storages, list)
    versions = f"manifest {row['manifest']}, wire {row['wire']}, table {row['table']}"
    plugin = f"{row['plugin'] or 'not said'}"
    if row["interpreter"]:
        plugin += f" ({row['interpreter']})"
    return [f"{row['type']}", versions, f"{row['state']}", ", ".join(storages) or "none", plugin]


# --- enable and disable -------------------------------------------------------------------------


def _enable(args: argparse.Namespace) -> int:
    done = enabling.enable(args.plugin, args.interpreter)
    for line in done.told:
        print(line)
    if not done.changed:
        return 0
    if args.reload and units.systemd_runs():
        units.reload_pve()
        print("PVE's daemons are reloaded")
    else:
        print(
            f"PVE's daemons don't know the type as it is now until they are reloaded:\n"
            f"  {units.RELOAD}"
        )
    return 0


def _disable(args: argparse.Namespace) -> int:
    for line in enabling.disable(args.type, force=args.force):
        print(line)
    return 0
