# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge serve``: one plugin on its socket, until a signal."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import advice, installed
from ..errors import StorageError
from ..host import Host
from ..interpreter import become
from ..listen import is_inherited, listening_socket
from ..loader import load
from ..notify import notify, start_watchdog
from ..paths import socket_path
from ..server import Server
from ..takeover import Takeover, announce

if TYPE_CHECKING:
    from ..reload import Reloading


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``serve``."""
    serve = commands.add_parser("serve", help="serve a plugin on its socket")
    serve.add_argument("plugin", nargs="?", help="a .py file or a module name")
    serve.add_argument(
        "--type",
        help="storage type; without PLUGIN its manifest says which plugin and interpreter",
    )
    serve.add_argument("--socket", type=Path, help="default: /run/pve-pybridge/<type>.sock")
    serve.add_argument("--trace", type=Path, metavar="FILE", help="append each call as a JSON line")
    serve.add_argument(
        "--drain",
        type=float,
        default=90,
        metavar="SECONDS",
        help="let running calls finish for so long when asked to end; default: 90",
    )
    serve.add_argument(
        "--reload",
        action="store_true",
        help="follow the plugin's files: the next call is the new code",
    )
    serve.add_argument(
        "--storage", metavar="ID", help="without PVE: make a storage that 'call' and 'trace' find"
    )
    serve.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="with --storage: an option of it",
    )
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    """Until TERM, INT or HUP: then running calls finish, and our successor takes the next.

    With systemd's socket, HUP has a successor take over first.
    """
    source = args.plugin or _named_by_manifest(args)
    host = _follow(source) if args.reload else Host(load(source))
    if args.type not in (None, host.type):
        raise StorageError(f"{source}: this plugin is of type '{host.type}', not '{args.type}'")
    plugin = type(host.plugin)
    if args.storage:
        from . import laptop  # noqa: PLC0415  a node's server has no use for it

        laptop.make_storage(args.storage, plugin, args.config)
    path = args.socket or socket_path(host.type)
    listener = listening_socket(path)
    try:
        server = Server(host, listener, args.trace)
    except StorageError:
        listener.close()
        raise

    def stop(signum: int, frame: object) -> None:
        if server.closing:
            os._exit(128 + signum)  # asked twice
        server.close()

    takeover = Takeover(_again(args, host.type), server.close)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    if is_inherited():
        signal.signal(signal.SIGHUP, lambda *_: takeover.start())
    for remark in advice.remarks(plugin):
        print(f"{host.type}: {remark}", file=sys.stderr)
    print(f"{host.type}: listening on {path}", file=sys.stderr, flush=True)
    if args.storage:
        print(f"try it: pve-pybridge call {args.storage} status", file=sys.stderr, flush=True)
    os.dup2(2, 1)  # a plugin's print() belongs in the log, at once
    sys.stdout = sys.stderr
    announce()
    watchdog = start_watchdog()
    server.serve_forever()
    watchdog.set()
    if not takeover.done:
        notify("STOPPING=1")
    if not is_inherited():
        path.unlink(missing_ok=True)
        listener.close()
    if not server.drain(math.inf if takeover.done else args.drain):
        print(f"{host.type}: calls still ran after {args.drain:g} s", file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)  # threads stuck in a plugin must not keep the process


def _again(args: argparse.Namespace, type_: str) -> list[str]:
    """The same once more, for a successor: the manifest is read anew, if there was one."""
    return _command(args, *(["--type", type_] if args.type else [args.plugin]))


def _command(args: argparse.Namespace, *source: str) -> list[str]:
    """What was asked for, with another source."""
    options = ["--drain", str(args.drain)]
    options += ["--socket", str(args.socket)] if args.socket else []
    options += ["--trace", str(args.trace)] if args.trace else []
    return ["--log-level", args.log_level, "serve", *source, *options]


def _named_by_manifest(args: argparse.Namespace) -> str:
    """The plugin the manifest of --type names; goes on under the interpreter it names, if any."""
    if args.type is None:
        raise StorageError("serve: name a plugin, or a storage type by --type")
    manifest = installed.find(args.type)
    installed.check_trust(manifest)
    if manifest.plugin is None:
        raise StorageError(
            f"manifest {manifest.file} doesn't say where the plugin is: write it anew with "
            "'pve-pybridge manifest PLUGIN --location PLUGIN', or name the plugin here"
        )
    if manifest.interpreter:
        options = ["--reload"] if args.reload else []
        options += ["--storage", args.storage] if args.storage else []
        options += [word for option in args.config for word in ("--config", option)]
        command = _command(args, manifest.plugin, "--type", args.type)
        become(manifest.interpreter, *command, *options)
    return manifest.plugin


def _follow(source: str) -> Reloading:
    from ..reload import Reloading  # noqa: PLC0415  nor for this

    return Reloading(source)
