# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``pve-pybridge``.  Each module here is one command, or two that belong together.

A module's ``add(commands)`` declares its arguments and what runs.  Only the module of the asked
command is imported, so that a server doesn't carry the others in memory.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from ..errors import StorageError
from ..refusal import refuse_waiting
from ..version import __version__

COMMANDS: Final = {
    "new": "new",
    "serve": "serve",
    "call": "call",
    "trace": "trace",
    "manifest": "manifest",
    "list": "plugins",
    "enable": "plugins",
    "disable": "plugins",
    "doctor": "doctor",
    "check": "check",
    "stats": "stats",
    "top": "stats",
}
"""Command → the module that has it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one line on STDERR and exit status 1."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except StorageError as err:
        print(f"pve-pybridge: {err}", file=sys.stderr)
        refuse_waiting(str(err))
        return 1
    except BrokenPipeError:  # who read our output has seen enough: `pve-pybridge top | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: Sequence[str]) -> int:
    args = command_line(argv).parse_args(argv)
    logging.basicConfig(
        level=args.log_level.upper(),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def command_line(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """What may be written; with the arguments at hand, only their command's module is imported."""
    parser = argparse.ArgumentParser(
        prog="pve-pybridge", description="Proxmox VE storage plugins in Python."
    )
    version = f"pve-pybridge {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the release")
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning", "error"],
        help="how much to say on standard error; default: warning",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    asked = next((COMMANDS[word] for word in argv if word in COMMANDS), None)
    for module in dict.fromkeys(COMMANDS.values()):
        if asked in (None, module):
            _import(module).add(commands)
    return parser


def _import(module: str) -> Any:
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as err:
        if err.name != "msgpack":
            raise
        raise StorageError("python3-msgpack is missing: apt install it") from None
