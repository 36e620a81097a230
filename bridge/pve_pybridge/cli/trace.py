# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge trace``: a live view of the calls of plugin servers; record and replay them.

Each server is watched by a thread that calls ``_trace`` on its socket, and again when the server
was restarted.  What runs for more than a second is shown on a last line, which ``_stats`` feeds.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, TextIO

from ..client import CallFailed, Client
from ..errors import StorageError
from ..paths import run_dir, socket_path
from . import replay, stats
from .call import find
from .show import Paint
from .trace_view import View

_AGAIN_SECONDS: Final = 0.3
_QUIET_SECONDS: Final = 1.0
_CLEAR: Final = "\r\033[K"
Event = tuple[str, str]
"""A storage type and a line of its trace, empty at its end; or ``!`` and a note."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``trace``."""
    trace = commands.add_parser("trace", help="watch calls live, record and replay them")
    trace.add_argument("storage", nargs="?", help="storage ID; default: all storages")
    trace.add_argument("--method", action="append", help="show only calls of this method")
    trace.add_argument("--record", type=Path, metavar="FILE", help="write the records there, too")
    trace.add_argument("--count", type=int, metavar="N", help="end after so many calls")
    trace.add_argument("--json", action="store_true", help="print the records as they are")
    trace.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    replay.add(trace)
    trace.set_defaults(run=_trace)


def _trace(args: argparse.Namespace) -> int:
    if args.replay:
        return replay.run(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    types = [find(args.storage)[0]["type"]] if args.storage else stats.types()
    if not types:
        raise StorageError(f"no plugin server has a socket in {run_dir()}")
    events: queue.Queue[Event] = queue.Queue(maxsize=1000)
    for type_ in types:
        watch = threading.Thread(
            target=_watch, args=(type_, args.storage or "", events), daemon=True
        )
        watch.start()
    try:
        with _recorder(args.record) as record:
            return _Show(args, types, record).follow(events)
    except KeyboardInterrupt:
        return 0


def _watch(type_: str, storeid: str, events: queue.Queue[Event]) -> None:
    """Follow one server over its restarts."""
    told = False
    while True:
        try:
            with Client(type_, socket_path(type_)) as client:
                told = False
                client.ask("_trace", storeid, on_log=lambda level, line: events.put((type_, line)))
        except CallFailed as err:
            events.put(("!", f"{type_}: {err}"))
            events.put((type_, ""))
            return
        except StorageError as err:
            if not told:
                events.put(("!", f"{type_}: {err}; waiting for it"))
                told = True
        time.sleep(_AGAIN_SECONDS)


class _Show:
    """Prints what comes in, and counts."""

    def __init__(self, args: argparse.Namespace, types: list[str], record: TextIO):
        self._args = args
        self._types = types
        self._record = record
        self._view = View(Paint(args.color))
        self._terminal = sys.stdout.isatty() and not args.json
        self._status = ""
        self._seen = 0

    def follow(self, events: queue.Queue[Event]) -> int:
        """Until enough calls were seen; KeyboardInterrupt ends it as well."""
        if not self._args.json:
            self._print(self._view.head())
        while self._args.count is None or self._seen < self._args.count:
            try:
                type_, line = events.get(timeout=_QUIET_SECONDS)
            except queue.Empty:
                self._show_running()
                continue
            if type_ == "!":
                self._note(line)
            elif not line:
                self._types.remove(type_)
                if not self._types:
                    return 1
            else:
                self._line(type_, line)
        return 0

    def _line(self, type_: str, line: str) -> None:
        entry = json.loads(line)
        call = "method" in entry
        if call and self._args.method and entry["method"] not in self._args.method:
            return
        print(line, file=self._record, flush=True)
        if self._args.json:
            self._print(line)
        elif "dropped" in entry:
            self._note(f"{entry['dropped']} calls came faster than this could be read")
        elif call:
            self._print(self._view.call(entry))
        else:
            self._note(f"watching {type_} (process {entry['pid']})")
        self._seen += call

    def _note(self, text: str) -> None:
        if self._args.json:
            print(f"pve-pybridge: {text}", file=sys.stderr, flush=True)
        else:
            self._print(self._view.note(text))

    def _print(self, text: str) -> None:
        if self._status:
            sys.stdout.write(_CLEAR)
            self._status = ""
        print(text, flush=True)

    def _show_running(self) -> None:
        """What hasn't ended yet, on a line that the next call replaces."""
        if not self._terminal:
            return
        running = [call for type_ in self._types for call in _running(type_)]
        old = sorted((c for c in running if c["age"] > _QUIET_SECONDS), key=lambda c: -c["age"])
        text = ", ".join(f"{c['storeid']} {c['method']} {c['age']:.0f} s" for c in old[:3])
        self._status = f"still running: {text}" if text else ""
        sys.stdout.write(_CLEAR + self._status)
        sys.stdout.flush()


def _running(type_: str) -> list[dict[str, Any]]:
    try:
        running: list[dict[str, Any]] = stats.snapshot(type_, timeout=1.0)["running"]
        return running
    except StorageError:
        return []


def _recorder(file: Path | None) -> TextIO:
    try:
        return Path(file or "/dev/null").open("w", encoding="utf-8")
    except OSError as err:
        raise StorageError(f"can't write {file}: {err.strerror}") from None
