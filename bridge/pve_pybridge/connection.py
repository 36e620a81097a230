# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One caller's connection: hello, then call after call, each answered exactly once."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from . import codec
from .callers import Callers
from .coerce import integer, mapping, strings, text
from .errors import Cancelled, DeadlineExceeded, ProtocolError
from .frames import FrameSocket
from .host import Serves, describe
from .methods import TABLE_VERSION
from .metrics import Metrics
from .model import Host as Caller
from .report import error_of
from .results import raw
from .storage import Call
from .trace import MAX_LINES, Trace
from .version import __version__
from .watch import Running, Watcher

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_SECTIONS: Final = 256
"""Storages whose sections a connection remembers."""


class Service(Protocol):
    """What a connection needs of its server."""

    host: Serves
    watcher: Watcher
    metrics: Metrics
    callers: Callers
    trace: Trace

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Mapping[str, Any]
    ) -> tuple[object, dict[str, object]]:
        """Run a call: (answer, extra)."""

    def last_status(self, storeid: str) -> object:
        """The last good figures of a storage."""

    def forget(self, connection: Connection) -> None:
        """The connection ended."""


class Connection:
    """Serves one accepted socket in a thread of its own."""

    def __init__(self, server: Service, sock: socket.socket):
        self.draining = False
        self.watching = False
        self._server = server
        self._frames = FrameSocket(sock)
        self._state = threading.Lock()
        self._idle = False
        self._caller = Caller()
        self._takes_parts = False
        self._sections: dict[str, tuple[object, dict[str, Any]]] = {}

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._frames.fileno()

    def serve(self) -> None:
        """Until the caller hangs up or breaks the protocol; never raises."""
        try:
            self._frames.check_peer()
            self._greet()
            while self._one_call():
                pass
        except ProtocolError as err:
            logger.warning("%s: %s", self._caller.command or "unknown caller", err)
            self.refuse("protocol", str(err))
        except (EOFError, OSError):
            pass  # hung up: the normal end of a connection
        except Exception:
            logger.exception("connection of %s failed", self._caller.command or "unknown caller")
        finally:
            self._server.forget(self)
            self.close()

    def close(self) -> None:
        """Hang up."""
        self._frames.close()

    def refuse(self, kind: str, message: str) -> None:
        """An error that belongs to no call; the caller may be gone."""
        with contextlib.suppress(OSError):
            self._frames.send("error", 0, {"kind": kind, "message": message})

    def drain(self) -> None:
        """Take no further call, except what the caller had sent already.

        A socket shut down for reading gives away its queue first; from now on the caller gets
        EPIPE and asks our successor.
        """
        with self._state:
            self.draining = True
            if self._idle:
                self._frames.shut(socket.SHUT_RD)

    def answer_for(self, running: Running) -> None:
        """The watcher's answer in place of a stuck plugin; the thread finds the socket shut."""
        self._frames.offer(running.late(), wait=0.1)
        self._frames.shut(socket.SHUT_RDWR)

    def show_life(self, number: int) -> None:
        """An alive frame, unless the caller isn't reading anyway."""
        self._frames.offer(codec.encode("alive", number))

    # --- greeting ------------------------------------------------------------------------------

    def _greet(self) -> None:
        kind, fields = self._frames.receive()
        if kind != "hello":
            raise ProtocolError(f"expected hello, got {kind}")
        about = _field("hello", "about", mapping, fields["about"])
        self._check_version(about)
        command = _field("hello", "command", text, about.get("command") or "")
        self._caller = Caller(
            apiver=_field("hello", "apiver", integer, about.get("apiver") or 0),
            apiage=_field("hello", "apiage", integer, about.get("apiage") or 0),
            hints=frozenset(_field("hello", "hints", strings, about.get("hints") or [])),
            pid=_field("hello", "pid", integer, about.get("pid") or 0),
            command=command,
            task=next((word for word in command.split() if word.startswith("UPID:")), ""),
        )
        self._takes_parts = bool(about.get("parts"))
        self._server.callers.note(
            self._caller,
            shim=_field("hello", "shim", integer, about.get("shim") or 0),
            loaded=_field("hello", "loaded", integer, about.get("loaded") or 0),
        )
        welcome = {
            "wire": codec.WIRE_VERSION,
            "table": TABLE_VERSION,
            "version": __version__,
            "type": self._server.host.type,
        }
        self._frames.send("welcome", {**welcome, "pid": os.getpid()})

    def _check_version(self, about: dict[str, Any]) -> None:
        wire, type_ = about.get("wire"), about.get("type")
        if wire != codec.WIRE_VERSION:
            raise ProtocolError(
                f"the shim speaks wire version {wire}, this plugin server {codec.WIRE_VERSION}: "
                "install the same release of both and restart the older one"
            )
        if type_ != self._server.host.type:
            raise ProtocolError(
                f"this server is for type '{self._server.host.type}', not '{type_}'"
            )

    # --- calls ---------------------------------------------------------------------------------

    def _one_call(self) -> bool:
        """Receive and answer one call; False when the watcher answered and closed meanwhile."""
        kind, fields = self._next()
        if kind == "cancel":
            return True  # its call ended before we read this
        if kind != "call":
            raise ProtocolError(f"expected call, got {kind}")
        if self._frames.hung_up():
            return False  # gave up while it waited in the listening socket: nothing must begin
        meta, number = _field("call", "meta", mapping, fields["meta"]), fields["id"]
        method = text(fields["method"])
        limit = self._server.host.limit(method)
        self.watching = method == "_trace"
        lines: list[tuple[str, str]] | None = [] if self._server.trace.on else None

        def emit(level: str, line: str) -> None:
            if lines is not None and len(lines) < MAX_LINES:
                lines.append((level, line))
            self._frames.send("log", number, level, raw(line))

        call = Call(
            method=method,
            host=self._caller,
            operation=meta.get("operation"),
            deadline=_deadline(meta.get("remaining"), limit),
            emit=emit,
            lines=lines,
            fd=self._frames.receive_fd() if meta.get("fd") else None,
        )
        if self._takes_parts:
            call.part = self._parts(call, number)
        storeid = text(fields["storeid"])

        def late() -> bytes:
            return self._late_frame(number, method, storeid, limit)

        running = Running(self, call, number, storeid, limit, late)
        self._server.watcher.begin(running)
        try:
            frame, outcome = self._answer(call, number, storeid, fields, late)
        finally:
            self._server.watcher.end(running)
            if call.fd is not None:
                os.close(call.fd)
        ours = running.claim()
        if not method.startswith("_"):  # the bridge's own questions are no calls of the plugin
            seconds = time.monotonic() - running.started
            self._server.metrics.count(method, seconds, failed="error" in outcome)
            if self._server.trace.on:
                outcome = outcome if ours else {**outcome, "late": True}
                self._server.trace.publish(call, storeid, fields, outcome, seconds)
        if not ours:
            while not running.answered:  # closing now would take the answer away
                time.sleep(0.001)
            return False
        self._frames.send_frame(frame)
        return True

    def _parts(self, call: Call, number: int) -> Callable[[list[dict[str, object]]], None]:
        """What sends rows of an answer before the rest of it."""

        def part(rows: list[dict[str, object]]) -> None:
            try:
                self._frames.send("part", number, rows)
            except OSError:
                raise Cancelled from None  # the caller is gone
            call.checkpoint()
            if call.lines is not None:
                call.rows += rows

        return part

    def _next(self) -> tuple[str, dict[str, Any]]:
        """Wait for a frame; only in here the connection counts as idle."""
        with self._state:
            if self.draining:
                self._frames.shut(socket.SHUT_RD)
            self._idle = True
        try:
            return self._frames.receive()
        finally:
            with self._state:
                self._idle = False

    def _answer(
        self,
        call: Call,
        number: int,
        storeid: str,
        fields: dict[str, Any],
        late: Callable[[], bytes],
    ) -> tuple[bytes, dict[str, Any]]:
        """The frame that ends a call, whatever happens in it."""
        try:
            args = {text(name): value for name, value in fields["args"].items()}
            scfg = self._section(storeid, fields["scfg"])
            value, extra = self._server.call(call, storeid, scfg, args)
            whole: Any = [*call.rows, *value] if call.rows and isinstance(value, list) else value
            told = {"result": whole, **({"extra": extra} if extra else {})}
            return codec.encode("result", number, value, extra), told
        except DeadlineExceeded as err:
            return late(), {"error": {**describe(err), "message": str(err)}}
        except BaseException as err:  # the thread must answer: a plugin may even raise SystemExit
            error = error_of(err, call, self._server.host.type, draining=self.draining)
            return codec.encode("error", number, error), {"error": error}

    def _section(self, storeid: str, received: object) -> dict[str, Any]:
        """A storage's section as text; the same object as long as the same one is received.

        A caller asks one storage several times.  Comparing is cheaper than converting, and the
        host knows by the identity that the typed configuration is the same, too.
        """
        known = self._sections.get(storeid)
        if known is None or known[0] != received:
            if len(self._sections) >= MAX_SECTIONS:
                self._sections.clear()
            known = self._sections[storeid] = (received, mapping(received))
        return known[1]

    def _late_frame(self, number: int, method: str, storeid: str, limit: float | None) -> bytes:
        """What a caller gets when the time is up: the last known status, else an error."""
        logger.warning("%s: %s took longer than %s s", storeid, method, limit)
        if method == "status":
            return codec.encode("result", number, self._server.last_status(storeid), {})
        message = f"storage '{storeid}': {method} got timeout" + (
            f" after {limit:g} s" if limit else ""
        )
        return codec.encode("error", number, {"kind": "timeout", "message": message})


def _field(frame: str, name: str, convert: Callable[[object], T], value: object) -> T:
    try:
        return convert(value)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"{frame} frame: '{name}' {err}") from None


def _deadline(remaining: object, limit: float | None) -> float | None:
    """The sooner of the caller's own alarm and the method's limit."""
    times = [float(t) for t in (remaining, limit) if isinstance(t, int | float)]
    return time.monotonic() + min(times) if times else None
