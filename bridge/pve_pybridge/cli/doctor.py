# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge doctor``: one screen that says whether everything fits."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from ..doctor.findings import Level
from ..doctor.node import Node
from ..doctor.registry import CHECKS, TITLES
from ..doctor.run import Outcome, run
from ..version import __version__

UNKNOWN = 3
"""Exit status when nothing could be looked at, as monitoring systems have it."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``doctor``."""
    doctor = commands.add_parser(
        "doctor",
        help="say whether everything fits, and how to mend what doesn't",
        description="Exit status: 0 all is well, 1 warnings, 2 faults, 3 nothing could be checked.",
    )
    doctor.add_argument("check", nargs="*", help=f"only these: {', '.join(CHECKS)}; default: all")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    if unknown := [name for name in args.check if name not in CHECKS]:
        print(f"pve-pybridge: no such check: {', '.join(unknown)}", file=sys.stderr)
        return UNKNOWN
    if os.geteuid() != 0:
        print(
            "pve-pybridge: doctor must run as root: only root sees sockets, secrets and processes",
            file=sys.stderr,
        )
        return UNKNOWN
    chosen = {name: CHECKS[name] for name in CHECKS if name in (args.check or CHECKS)}
    node = Node()
    outcomes = run(node, chosen)
    level = max(outcome.report.level for outcome in outcomes)
    if args.json:
        print(json.dumps(_as_data(node, level, outcomes), indent=1))
    else:
        print(_as_text(node, outcomes))
    sys.stdout.flush()
    os._exit(level)  # a check that hangs must not keep us


def _as_data(node: Node, level: Level, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Keys are only ever added."""
    return {
        "schema": 1,
        "release": __version__,
        "node": node.name,
        "level": _word(level),
        "checks": [
            {
                "name": outcome.name,
                "title": TITLES[outcome.name],
                "level": _word(outcome.report.level),
                "summary": outcome.report.summary,
                "seconds": round(outcome.seconds, 3),
                "findings": [
                    {"level": _word(f.level), "where": f.where, "what": f.what, "mend": f.mend}
                    for f in outcome.report.findings
                ],
            }
            for outcome in outcomes
        ],
    }


def _as_text(node: Node, outcomes: Sequence[Outcome]) -> str:
    lines = [f"pve-pybridge {__version__} on {node.name}: {_count(outcomes)}"]
    for outcome in outcomes:
        report = outcome.report
        if not report.findings:
            lines.append(f"  ok       {outcome.name:<13} {report.summary or TITLES[outcome.name]}")
        for finding in sorted(report.findings, key=lambda f: (-f.level, f.where)):
            lines.append(
                f"  {_word(finding.level):<8} {outcome.name:<13} {finding.where}: {finding.what}"
            )
            lines.append(f"{'':25}mend: {finding.mend}")
    return "\n".join(lines)


def _count(outcomes: Sequence[Outcome]) -> str:
    levels = [finding.level for outcome in outcomes for finding in outcome.report.findings]
    counted = [
        f"{levels.count(level)} {_word(level)}{'s' * (levels.count(level) > 1)}"
        for level in (Level.FAULT, Level.WARNING)
        if level in levels
    ]
    return ", ".join(counted) or "all is well"


def _word(level: Level) -> str:
    return level.name.lower()
