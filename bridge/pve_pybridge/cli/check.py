# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge check``: the conformance suite on one plugin."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..testing.conformance.report.account import Account, as_json
from ..testing.conformance.report.html import as_html
from ..testing.conformance.report.junit import as_junit
from ..testing.conformance.report.terminal import Terminal
from ..testing.conformance.run import run
from ..testing.conformance.settings import Settings, pairs
from ..testing.conformance.statements import STATEMENTS

REPORTS = {"json": as_json, "junit": as_junit, "html": as_html}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``check``."""
    check = commands.add_parser("check", help="try a plugin against PVE's storage contract")
    check.add_argument("plugin", help="a .py file or a module name")
    for name, text in (
        ("config", "options of the storage to try; {dir} in a value is a fresh directory"),
        ("second", "what differs in a second storage with volumes of its own"),
        ("unreachable", "what differs in a storage whose backend doesn't answer"),
    ):
        check.add_argument(
            f"--{name}", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text
        )
    check.add_argument(
        "--previous", type=Path, metavar="MANIFEST", help="manifest of the previous release"
    )
    check.add_argument(
        "--etc", type=Path, metavar="DIR", help="files for the pretended /etc/pve, as ceph.conf"
    )
    check.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="C-NNN", help="these statements"
    )
    check.add_argument("--apiver", type=int, default=15, choices=range(10, 16), metavar="10…15")
    check.add_argument(
        "--timeout", type=float, default=30, metavar="SECONDS", help="until a call counts as hung"
    )
    check.add_argument("--quiet", action="store_true", help="print failures and the sum only")
    for name in REPORTS:
        check.add_argument(f"--{name}", metavar="FILE", help="write a report; - is STDOUT")
    check.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    """Exit status 0 when every statement that concerns the plugin holds."""
    unknown = [number for number in args.only if number not in STATEMENTS]
    if unknown:
        raise StorageError(f"there is no statement {unknown[0]}; they are C-001 … C-104")
    if args.etc and not args.etc.is_dir():
        raise StorageError(f"{args.etc} is no directory")
    settings = Settings(
        config=pairs(args.config),
        second=pairs(args.second),
        unreachable=pairs(args.unreachable),
        previous=_manifest(args.previous) if args.previous else None,
        etc=args.etc,
        apiver=args.apiver,
        timeout=args.timeout,
    )
    to_stdout = "-" in (args.json, args.junit, args.html)
    terminal = Terminal(sys.stderr if to_stdout else sys.stdout, quiet=args.quiet)
    account = run(
        *(args.plugin, settings),
        only=args.only,
        on_begin=terminal.begin,
        on_result=terminal.row,
    )
    terminal.end(account)
    for name in REPORTS:
        if target := getattr(args, name):
            _write(target, name, account)
    return 1 if account.bad else 0


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found["options"], found["content"][0]
    except OSError as err:
        raise StorageError(f"can't read {path}: {err.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise StorageError(f"{path} is no manifest of pve-pybridge") from None
    return found


def _write(target: str, name: str, account: Account) -> None:
    text = REPORTS[name](account)
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, "utf-8")
    except OSError as err:
        raise StorageError(f"can't write {target}: {err.strerror}") from None
    print(f"{name}: {target}", file=sys.stderr)
