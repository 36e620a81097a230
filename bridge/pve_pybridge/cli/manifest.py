# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge manifest``: all that PVE needs to know of a type, from the plugin class."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from .. import manifest
from ..errors import StorageError
from ..loader import load


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``manifest``."""
    show = commands.add_parser("manifest", help="print the manifest the shim needs")
    show.add_argument("plugin", help="a .py file or a module name")
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there instead")
    show.set_defaults(run=_manifest)


def _manifest(args: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints is no part of it
        plugin = load(args.plugin)
    data = json.dumps(manifest.build(plugin), indent=1, ensure_ascii=True) + "\n"
    if args.output is None:
        print(data, end="")
        return 0
    temporary = args.output.with_name(f".{args.output.name}.new")
    try:
        temporary.write_text(data, "ascii")
        temporary.chmod(0o644)
        temporary.replace(args.output)
    except OSError as err:
        raise StorageError(f"can't write {args.output}: {err.strerror}") from None
    return 0
