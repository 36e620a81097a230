# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server tells of its calls: one record each, to a file and to everybody who watches.

Used by the connections, which report each call when it is over, and by ``pve-pybridge trace``,
which watches by calling ``_trace``.  A record is one line of JSON (docs/trace.md).  Watchers have
queues of a fixed size: one that reads slowly loses records, and is told so, but slows nobody.
Secrets are hidden by name and by value before a record is written (D13).
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, quote_plus

from .coerce import mapping, plain
from .errors import StorageError
from .methods import METHODS
from .storage import Call

logger = logging.getLogger(__name__)

TRACE_VERSION: Final = 1
MAX_RECORD: Final = 1 << 20
"""Characters of one record; what makes it longer is left out and named under ``cut``."""
MAX_WATCHERS: Final = 16
QUEUE_RECORDS: Final = 2000
QUEUE_CHARACTERS: Final = 8 << 20
MAX_LINES: Final = 1000
"""Log lines kept of one call."""
HIDDEN: Final = "***"
SHORTEST: Final = 3
"""Shorter secrets are hidden where they stand by themselves, not in the midst of other text."""
_LARGE: Final = ("result", "log", "args", "scfg")


class Sink(Protocol):
    """What takes records."""

    def offer(self, storeid: str, line: str) -> None:
        """Take one; never waits."""


class _File:
    """The records of all storages, in a file."""

    def __init__(self, path: Path):
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as err:
            raise StorageError(f"can't write the trace to {path}: {err.strerror}") from None
        self._lock = threading.Lock()

    def offer(self, storeid: str, line: str) -> None:
        """Write it."""
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """No more of them."""
        self._file.close()


class _Watcher:
    """The queue of one watcher."""

    def __init__(self, storeid: str):
        self._storeid = storeid
        self._lines: deque[str] = deque()
        self._size = 0
        self._dropped = 0
        self._news = threading.Condition()

    def offer(self, storeid: str, line: str) -> None:
        """Queue a line, if there is room for it; never waits."""
        if self._storeid not in ("", storeid):
            return
        with self._news:
            if len(self._lines) >= QUEUE_RECORDS or self._size + len(line) > QUEUE_CHARACTERS:
                self._dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            self._news.notify()

    def take(self, seconds: float) -> list[str]:
        """What came in, waiting for it for so long."""
        with self._news:
            if not self._lines:
                self._news.wait(seconds)
            lines = list(self._lines)
            self._lines.clear()
            self._size = 0
            if self._dropped:
                lines.append(json.dumps({"dropped": self._dropped}))
                self._dropped = 0
            return lines


class Trace:
    """The records of one server.  *about* makes the header; *hidden* names secret properties."""

    def __init__(
        self,
        type_: str,
        about: Callable[[], Mapping[str, object]],
        hidden: Callable[[], Iterable[str]] = tuple,
        file: Path | None = None,
    ):
        self._type = type_
        self._about = about
        self._hidden = hidden
        self._lock = threading.Lock()
        self._file = _File(file) if file else None
        self.sinks: tuple[Sink, ...] = ()
        """Who wants records now."""
        self.closed = False
        if self._file:
            self._file.offer("", self._header())
            self.sinks = (self._file,)

    def close(self) -> None:
        """No more records; who watches is let go."""
        self.closed = True
        if self._file:
            self._remove(self._file)
            self._file.close()

    def publish(
        self,
        call: Call,
        storeid: str,
        scfg: object,
        args: object,
        outcome: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Tell of a finished call; whatever goes wrong here is no concern of its caller."""
        try:
            line = encode(self._record(call, storeid, scfg, args, outcome, seconds))
            for sink in self.sinks:
                sink.offer(storeid, line)
        except Exception:
            logger.exception("can't trace %s", call.method)

    def watch(self, call: Call, storeid: str) -> None:
        """Serve one watcher with records of *storeid* ('' for all) until it goes away."""
        watcher = _Watcher(storeid)
        with self._lock:
            if sum(isinstance(one, _Watcher) for one in self.sinks) >= MAX_WATCHERS:
                raise StorageError(f"{MAX_WATCHERS} traces of this server are running already")
            self.sinks = (*self.sinks, watcher)
        try:
            call.emit("trace", self._header())
            while not (self.closed or call.cancelled.is_set()):
                for line in watcher.take(0.5):
                    call.emit("trace", line)
        except OSError:
            pass  # the watcher died: the end of the watch, and of nothing else
        finally:
            self._remove(watcher)

    def _header(self) -> str:
        return json.dumps({"trace": TRACE_VERSION, **self._about()})

    def _remove(self, sink: Sink) -> None:
        with self._lock:
            self.sinks = tuple(one for one in self.sinks if one is not sink)

    def _record(
        self,
        call: Call,
        storeid: str,
        scfg: object,
        args: object,
        outcome: Mapping[str, Any],
        seconds: float,
    ) -> dict[str, Any]:
        host = call.host
        record: dict[str, Any] = {
            "time": round(time.time() - seconds, 6),
            "type": self._type,
            "storeid": storeid,
            "method": call.method,
            "args": mapping(args),
            "scfg": self._named(mapping(scfg)),
            "pid": host.pid,
            "command": host.command,
            "task": host.task,
            "host": {"apiver": host.apiver, "apiage": host.apiage, "hints": sorted(host.hints)},
            "operation": plain(call.operation),
            "log": [list(line) for line in call.lines or ()],
            "ms": round(seconds * 1000, 3),
            **plain(dict(outcome)),
        }
        words = set(call.secrets)
        given = record["args"]
        for name in ("sensitive", "update"):
            if isinstance(given.get(name), dict):
                words |= set(_texts(v for k, v in given[name].items() if self._secret(name, k)))
                given[name] = self._named(given[name], everything=name == "sensitive")
        row = METHODS.get(call.method)
        if row and row.result == "hook" and isinstance(record.get("result"), dict):
            words |= set(_texts(record["result"].values()))  # generated, shown once
            record["result"] = dict.fromkeys(record["result"], HIDDEN)
        changed = (record.get("extra") or {}).get("mutable")
        if changed:
            changed["set"] = self._named(changed["set"])
        return _scrubbed(record, _disguises(words)) if words else record

    def _secret(self, where: str, name: str) -> bool:
        return where == "sensitive" or name in self._hidden()

    def _named(self, values: dict[str, Any], *, everything: bool = False) -> dict[str, Any]:
        """A map without the values of secret properties."""
        hidden = frozenset(self._hidden())
        return {
            key: HIDDEN if value is not None and (everything or key in hidden) else value
            for key, value in values.items()
        }


def encode(record: dict[str, Any]) -> str:
    """A record as its line, without what makes it too long."""
    line = json.dumps(record, default=repr)
    cut: list[str] = []
    for name in _LARGE:
        if len(line) <= MAX_RECORD:
            break
        if record.get(name):
            cut.append(name)
            line = json.dumps({**record, **dict.fromkeys(cut), "cut": cut}, default=repr)
    return line


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]


def _disguises(words: Iterable[str]) -> list[str]:
    """Secrets in every form that errors and log lines are likely to hold, the longest first."""
    found: set[str] = set()
    for word in words:
        if len(word) < SHORTEST:
            continue
        data = word.encode("utf-8", "surrogateescape")
        found |= {word, quote(data, safe=""), quote(data), quote_plus(data)}
        found |= {repr(word)[1:-1], json.dumps(word)[1:-1], data.hex()}
        found.add(base64.b64encode(data).decode())
    return sorted(found, key=len, reverse=True)


def _scrubbed(value: Any, words: list[str]) -> Any:
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, HIDDEN)
        return value
    if isinstance(value, dict):
        return {key: _scrubbed(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrubbed(item, words) for item in value]
    return value
