# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge trace --replay``: a recording shown, run again, or served."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .. import offnode
from ..client import CallFailed, Client
from ..errors import StorageError
from ..listen import listening_socket
from ..loader import load
from ..methods import METHODS
from ..paths import socket_path
from ..recording import Recorded, Recording, read
from ..server import Server
from ..testing.sandbox import Sandbox
from . import laptop
from .show import Paint
from .trace_view import View

_VOLATILE: Final = frozenset({"status"})
"""Answers that are other figures each time; that there are figures is compared."""


def add(trace: argparse.ArgumentParser) -> None:
    """Declare the options of replay."""
    trace.add_argument("--replay", type=Path, metavar="FILE", help="show the calls of a recording")
    trace.add_argument(
        "--against", metavar="PLUGIN", help="with --replay: call this plugin, compare the answers"
    )
    trace.add_argument(
        "--config", action="append", default=[], metavar="OPTION=VALUE", help="with --against"
    )
    trace.add_argument(
        "--serve", action="store_true", help="with --replay: a server that answers as recorded"
    )


def run(args: argparse.Namespace) -> int:
    """Show, compare or serve."""
    recording = read(args.replay)
    calls = [
        call
        for call in recording.calls
        if args.storage in (None, call["storeid"])
        and (not args.method or call["method"] in args.method)
    ]
    chosen = Recording(recording.headers, calls, recording.dropped)
    if args.serve:
        return _serve(chosen)
    if args.against:
        return _against(args, chosen)
    view = View(Paint(args.color))
    if not args.json:
        print(view.head())
    for call in calls[: args.count]:
        print(json.dumps(call) if args.json else view.call(call))
    if recording.dropped and not args.json:
        print(view.note(f"{recording.dropped} calls were too fast to be recorded"))
    return 0


# --- run again -----------------------------------------------------------------------------------


def _against(args: argparse.Namespace, recording: Recording) -> int:
    """The recorded calls to another plugin; exit status 1 when an answer differs."""
    view, paint = View(Paint(args.color)), Paint(args.color)
    plugin = load(args.against)
    if recording.one_type() != plugin.type:
        raise StorageError(
            f"the recording is of type '{recording.one_type()}', {args.against} of '{plugin.type}'"
        )
    given = offnode.options_by_property(plugin, laptop.options(args.config))
    different = skipped = 0
    with Sandbox() as sandbox:
        for storeid in dict.fromkeys(call["storeid"] for call in recording.calls):
            sandbox.store_secrets(plugin, storeid, given)
        sandbox.serve(args.against)
        with sandbox.client(plugin.type, 3600) as client:
            print(view.head())
            for call in recording.calls[: args.count]:
                row = METHODS.get(call["method"])
                if row and any(arg.type == "fd" for arg in row.args):
                    skipped += 1
                    print(view.note(f"{call['method']} left out: its data isn't in a recording"))
                    continue
                now = _again(client, call, given)
                same = _same(call, now)
                different += not same
                print(view.call(now))
                if not same:
                    print(paint("red", "    different, it was: ") + view.answer(call))
        said = sandbox.log.read_text(errors="replace")
    print(f"{len(recording.calls) - skipped} calls, {different} answered differently")
    if different and "Traceback" in said:
        print(said, file=sys.stderr)
    return int(different > 0)


def _again(client: Client, call: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    scfg = {**(call.get("scfg") or {"type": call["type"]}), **given}
    log: list[list[str]] = []
    now = {key: call.get(key) for key in ("type", "storeid", "method", "args", "pid", "command")}
    now |= {"time": time.time(), "task": call.get("task"), "log": log}
    started = time.monotonic()
    try:
        value, extra = client.ask(
            call["method"],
            call["storeid"],
            scfg,
            call["args"],
            operation=call.get("operation"),
            on_log=lambda level, line: log.append([level, line]),
        )
        now |= {"result": value, **({"extra": extra} if extra else {})}
    except CallFailed as err:
        now["error"] = err.error
    return {**now, "ms": (time.monotonic() - started) * 1000}


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if before["method"] in _VOLATILE and "error" not in before:
        return (before.get("result") is None) == (now.get("result") is None) and "error" not in now
    if "error" in before and "error" in now:
        return _told(before) == _told(now)
    keys = ("result", "error", "extra")
    return all(before.get(key) == now.get(key) for key in keys if key not in before.get("cut", ()))


def _told(record: Mapping[str, Any]) -> tuple[object, str]:
    """An error without the number that leads to its traceback."""
    message = str(record["error"].get("message", ""))
    return record["error"].get("kind"), message.partition(" (call ")[0]


# --- in place of the storage ---------------------------------------------------------------------


def _serve(recording: Recording) -> int:
    """Answer as recorded until a signal; ``call`` and the shim find the storages."""
    host = Recorded(recording)
    path = socket_path(host.type)
    listener = listening_socket(path)
    server = Server(host, listener)
    _make_storages(host, recording)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda signum, frame: server.close())
    names = ", ".join(dict.fromkeys(call["storeid"] for call in recording.calls))
    print(f"{host.type}: answers as recorded for {names}, listening on {path}", flush=True)
    server.serve_forever()
    path.unlink(missing_ok=True)
    server.drain(1)
    sys.stdout.flush()
    os._exit(0)


def _make_storages(host: Recorded, recording: Recording) -> None:
    """What ``call`` needs to find the storages without PVE: sections and manifest."""
    there = laptop.files()
    there.make()
    if host.facts():
        there.enable(host.facts())
    for call in recording.calls:
        there.add(call["storeid"], {"type": host.type, **(call.get("scfg") or {})})
