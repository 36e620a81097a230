# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge stats`` and ``top``: what a live server is doing and how long things take."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..client import Client
from ..errors import StorageError
from ..paths import run_dir, socket_path

CLEAR = "\033[H\033[2J"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``stats`` and ``top``."""
    figures = commands.add_parser("stats", help="running calls, counts and times of live servers")
    figures.add_argument("type", nargs="*", help="storage types; default: all with a socket")
    figures.add_argument("--json", action="store_true", help="for programs")
    figures.set_defaults(run=lambda args: stats(args.type, as_json=args.json))

    live = commands.add_parser("top", help="the same, refreshed until interrupted")
    live.add_argument("type", nargs="*", help="storage types; default: all with a socket")
    live.add_argument(
        "--interval", type=float, default=2, metavar="SECONDS", help="between two; default: 2"
    )
    live.set_defaults(run=lambda args: top(args.type, args.interval))


def types() -> list[str]:
    """The types that have a socket."""
    return sorted(path.stem for path in run_dir().glob("*.sock"))


def snapshot(type_: str, timeout: float = 5.0) -> dict[str, Any]:
    """A server's own account; StorageError when it can't be asked."""
    with Client(type_, socket_path(type_), timeout) as client:
        answer: dict[str, Any] = client.call("_stats")
        return answer


def stats(chosen: Sequence[str], *, as_json: bool) -> int:
    """Print each server once; exit status 1 when one doesn't answer."""
    failed = False
    answers = {}
    for type_ in chosen or types():
        try:
            answers[type_] = snapshot(type_)
        except StorageError as err:
            failed = True
            print(f"pve-pybridge: {type_}: {err}", file=sys.stderr)
    if as_json:
        print(json.dumps(answers, indent=1))
    elif answers or not failed:
        print("\n\n".join(map(render, answers.values())) or "no plugin server has a socket here")
    return int(failed)


def top(chosen: Sequence[str], seconds: float) -> int:
    """The same, again and again, until interrupted."""
    try:
        while True:
            pages = []
            for type_ in chosen or types():
                try:
                    pages.append(render(snapshot(type_)))
                except StorageError as err:
                    pages.append(f"{type_}: {err}")
            print(CLEAR + "\n\n".join(pages), flush=True)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def render(data: Mapping[str, Any]) -> str:
    """One server as text."""
    up = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data["since"]))
    lines = [
        f"{data['type']}: process {data['pid']}, up since {up},"
        f" {data['connections']} connections, {data['threads']} threads"
    ]
    if data["running"]:
        lines += ["", f"  {'running':<28} {'storage':<16} {'age':>9}  caller"]
    for call in sorted(data["running"], key=lambda one: -one["age"]):
        caller = f"{call['pid']} {call['command']}"
        lines.append(
            f"  {call['method']:<28} {call['storeid']:<16} {call['age']:>7.1f} s  {caller[:110]}"
        )
    if data["methods"]:
        head = "".join(f"{name:>10}" for name in ("calls", "failed", "p50 ms", "p99 ms", "max ms"))
        lines += ["", f"  {'method':<28}{head}"]
    for name, one in data["methods"].items():
        times = "".join(f"{one[key]:>10.2f}" for key in ("p50", "p99", "max"))
        lines.append(f"  {name:<28}{one['calls']:>10}{one['failed']:>10}{times}")
    return "\n".join(lines)
