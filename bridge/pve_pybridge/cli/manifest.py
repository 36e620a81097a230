# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge manifest``: all that PVE needs to know of a type, from the plugin class."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from .. import advice, atomic, interpreter, manifest
from ..errors import StorageError
from ..loader import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``manifest``."""
    show = commands.add_parser("manifest", help="print the manifest the shim needs")
    show.add_argument("plugin", help="a .py file or a module name")
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there instead")
    show.add_argument(
        "--location",
        metavar="PLUGIN",
        help="where the plugin will be on the node: an absolute path or a module name",
    )
    show.add_argument(
        "--interpreter", metavar="PYTHON", help="absolute path of the Python that shall serve it"
    )
    show.set_defaults(run=_manifest)


def _manifest(args: argparse.Namespace) -> int:
    wanted = args.interpreter
    if wanted and not interpreter.lent and Path(wanted).is_file():
        # The one that has the plugin's dependencies; a build machine may lack it.
        options = ["--interpreter", wanted]
        options += ["--location", args.location] if args.location else []
        options += ["--output", str(args.output)] if args.output else []
        interpreter.become(wanted, "manifest", args.plugin, *options)
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints is no part of it
        plugin = load(args.plugin)
    facts = manifest.build(plugin, args.location, args.interpreter)
    for remark in advice.remarks(plugin):
        print(f"pve-pybridge: plugin {plugin.__name__}: {remark}", file=sys.stderr)
    data = json.dumps(facts, indent=1, ensure_ascii=True) + "\n"
    if args.output is None:
        print(data, end="")
        return 0
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):  # no manifest yet
        manifest.refuse_new_requirements(json.loads(args.output.read_bytes()), facts)
    try:
        atomic.write(args.output, data, 0o644)
    except OSError as err:
        raise StorageError(f"can't write {args.output}: {err.strerror}") from None
    return 0
