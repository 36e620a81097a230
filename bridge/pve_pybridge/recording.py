# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A recorded trace as a storage: the same calls get the same answers, without the plugin.

``read`` is for everything that works with a recording; ``Recorded`` stands in for the Host in a
server that ``pve-pybridge trace --replay FILE --serve`` starts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import ParameterError, RollbackBlocked, StorageError
from .host import Extra
from .methods import METHODS, Arguments, named
from .results import nested
from .storage import Call
from .trace import HIDDEN, TRACE_VERSION

Record = dict[str, Any]
_TEXT: Final = frozenset({"notes"})
_NOT_ARGUMENTS: Final = frozenset({"timeout"})


@dataclass(frozen=True)
class Recording:
    """What a file holds: headers by storage type, and the calls in their order."""

    headers: Mapping[str, Record]
    calls: Sequence[Record]
    dropped: int = 0
    """Calls that the recorder missed."""

    def one_type(self) -> str:
        """The storage type, where there must be only one."""
        types = list(dict.fromkeys(call["type"] for call in self.calls)) or list(self.headers)
        if len(types) != 1:
            found = ", ".join(types) or "none"
            raise StorageError(f"the recording has calls of the types {found}: one is needed")
        return str(types[0])


def read(file: Path) -> Recording:
    """A recording; StorageError names the line that is none."""
    headers: dict[str, Record] = {}
    calls: list[Record] = []
    dropped = 0
    try:
        lines = file.read_text("utf-8", "surrogateescape").splitlines()
    except OSError as err:
        raise StorageError(f"can't read {file}: {err.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if "trace" in entry:
                _check_version(file, entry)
                headers[entry["type"]] = entry
            elif "dropped" in entry:
                dropped += entry["dropped"]
            else:
                calls.append({key: entry[key] for key in _NEEDED} | entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines) and calls:
                break  # cut off while it was written
            raise StorageError(f"{file}, line {number}: no record of a trace") from None
    return Recording(headers, calls, dropped)


_NEEDED: Final = ("time", "type", "storeid", "method", "args", "ms")


def _check_version(file: Path, header: Record) -> None:
    if header["trace"] > TRACE_VERSION:
        raise StorageError(
            f"{file} is a trace of version {header['trace']}, this pve-pybridge reads up to "
            f"{TRACE_VERSION}: use a newer one"
        )


class Recorded:
    """Answers calls from a recording; a call asked again gets its next answer, or the last."""

    shared: Final[frozenset[str]] = frozenset()
    """No methods: each caller gets an answer of its own."""

    def __init__(self, recording: Recording):
        self.type = recording.one_type()
        self._header = recording.headers.get(self.type, {})
        self._lock = threading.Lock()
        self._answers: dict[str, list[Record]] = {}
        for call in recording.calls:
            self._answers.setdefault(
                _key(call["method"], call["storeid"], call["args"]), []
            ).append(call)

    @property
    def secrets(self) -> list[str]:
        """Names of secret properties."""
        return list(self.facts().get("sensitive", ()))

    def facts(self) -> Mapping[str, Any]:
        """The manifest that was recorded."""
        found: Mapping[str, Any] = self._header.get("manifest", {})
        return found

    def limit(self, method: str) -> float | None:
        """None: an answer is there at once."""
        return None

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Arguments
    ) -> tuple[object, Extra]:
        """The recorded answer or error, with its log lines."""
        key = _key(call.method, storeid, named(call.method, args))
        with self._lock:
            known = self._answers.get(key)
            if not known and call.method == "activate_storage":
                return None, {}  # whoever asks now may not have asked then
            if not known:
                raise StorageError(f"storage '{storeid}': the recording has no such {call.method}")
            record = known.pop(0) if len(known) > 1 else known[0]
        for level, line in record.get("log") or ():
            call.emit(level, line)
        if "error" in record:
            raise _error(record["error"])
        if "result" in record.get("cut", ()):
            raise StorageError(f"the answer of {call.method} was too long to be recorded")
        value = record.get("result")
        row = METHODS.get(call.method)
        if not (row and row.result in ("attribute", "text")):
            value = _wire(value)
        return value, _wire(record.get("extra") or {})


def _key(method: str, storeid: str, args: Mapping[str, Any]) -> str:
    """Same question, same key: secrets and time limits make no difference."""
    asked = {_text(key): _hidden(value) for key, value in args.items()}
    for name in _NOT_ARGUMENTS:
        asked.pop(name, None)
    return json.dumps([method, storeid, asked], sort_keys=True, default=_text)


def _hidden(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _hidden(item) for key, item in value.items() if item != HIDDEN}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _wire(value: Any) -> Any:
    """As it was on the wire: bytes where it isn't ASCII, but for text that people write."""
    if isinstance(value, dict):
        return {k: item if k in _TEXT else _wire(item) for k, item in value.items()}
    if isinstance(value, list):
        return [_wire(item) for item in value]
    return nested(value)


def _error(error: Mapping[str, Any]) -> StorageError:
    message = str(error.get("message", "unknown error"))
    found: StorageError
    if error.get("blockers"):
        found = RollbackBlocked(message, error["blockers"])
    elif error.get("errors"):
        found = ParameterError(error["errors"], message)
    else:
        found = StorageError(message)
    found.kind = str(error.get("kind", "user"))
    return found
