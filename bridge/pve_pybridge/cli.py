# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``pve-pybridge``: serve a plugin, write its manifest, look at live servers."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import manifest, top
from .coerce import plain
from .errors import StorageError
from .host import Host
from .listen import listening_socket
from .loader import load
from .notify import notify, start_watchdog
from .paths import socket_path
from .server import Server
from .version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one line on STDERR and exit status 1."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=args.log_level.upper(),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except StorageError as err:
        print(f"pve-pybridge: {err}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pve-pybridge", description="Proxmox VE storage plugins in Python."
    )
    parser.add_argument("--version", action="version", version=f"pve-pybridge {__version__}")
    parser.add_argument(
        "--log-level", default="warning", choices=["debug", "info", "warning", "error"]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a plugin on its socket")
    serve.add_argument("plugin", help="a .py file or a module name")
    serve.add_argument("--socket", type=Path, help="default: /run/pve-pybridge/<type>.sock")
    serve.add_argument("--trace", type=Path, metavar="FILE", help="append each call as a JSON line")
    serve.add_argument(
        "--drain", type=float, default=90, metavar="SECONDS", help="let calls finish before exit"
    )
    serve.set_defaults(run=_serve)

    show = commands.add_parser("manifest", help="print the manifest the shim needs")
    show.add_argument("plugin", help="a .py file or a module name")
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there instead")
    show.set_defaults(run=_manifest)

    figures = commands.add_parser("stats", help="running calls, counts and times of live servers")
    figures.add_argument("type", nargs="*", help="storage types; default: all with a socket")
    figures.add_argument("--json", action="store_true")
    figures.set_defaults(run=_stats)

    live = commands.add_parser("top", help="the same, refreshed until interrupted")
    live.add_argument("type", nargs="*")
    live.add_argument("--interval", type=float, default=2, metavar="SECONDS")
    live.set_defaults(run=_top)
    return parser


def _serve(args: argparse.Namespace) -> int:
    """Until TERM, INT or HUP: then running calls finish, and our successor takes the next."""
    host = Host(load(args.plugin))
    path = args.socket or socket_path(host.type)
    listener = listening_socket(path)
    server = Server(host, listener, _tracer(args.trace) if args.trace else None)

    def stop(signum: int, frame: object) -> None:
        if server.closing:
            os._exit(128 + signum)  # asked twice
        server.close()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    print(f"{host.type}: listening on {path}", file=sys.stderr, flush=True)
    os.dup2(2, 1)  # a plugin's print() belongs in the log
    notify("READY=1")
    start_watchdog()
    server.serve_forever()
    notify("STOPPING=1")
    if not os.environ.get("LISTEN_FDS"):
        path.unlink(missing_ok=True)
        listener.close()
    if not server.drain(args.drain):
        print(f"{host.type}: calls still ran after {args.drain:g} s", file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)  # threads stuck in a plugin must not keep the process


def _stats(args: argparse.Namespace) -> int:
    return top.stats(args.type, as_json=args.json)


def _top(args: argparse.Namespace) -> int:
    return top.top(args.type, args.interval)


def _tracer(path: Path) -> Callable[[dict[str, Any]], None]:
    file = path.open("a", encoding="utf-8", errors="backslashreplace")

    def trace(entry: dict[str, Any]) -> None:
        file.write(json.dumps(plain(entry), default=repr) + "\n")
        file.flush()

    return trace


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
