# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One caller's connection: hello, then call after call, each answered exactly once."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from . import codec
from .callers import Callers
from .coerce import mapping, text
from .crew import QUICK_SECONDS, Crew
from .errors import Cancelled, DeadlineExceeded, ProtocolError
from .frames import FrameSocket, field
from .greeting import greet
from .host import NOTHING, Extra, Serves, describe
from .methods import METHODS, Arguments, named
from .metrics import Metrics
from .model import Host as Caller
from .report import error_of
from .results import raw
from .section import Section
from .trace import MAX_LINES, Trace
from .watch import Running, Watcher

logger = logging.getLogger(__name__)

_NAMES: Final[dict[object, tuple[str, ...]]] = {name.encode(): (name,) for name in METHODS}
"""What a call names, as it comes → as text: a method, or several in a row."""
_MAX_NAMES: Final = 1000
_NOBODY: Final = Caller()
"""Who calls, before the greeting."""
MAX_SECTIONS: Final = 256
"""Storages whose sections a connection remembers."""


Runs = Callable[[Running, Section, Arguments], tuple[Any, Extra]]


class Service(Protocol):
    """What a connection needs of its server."""

    host: Serves
    watcher: Watcher
    metrics: Metrics
    callers: Callers
    trace: Trace
    crew: Crew

    others: Mapping[str, Runs]
    """Methods that are more than a call of the host → what runs a call: (answer, extra)."""

    def last_status(self, storeid: str) -> object:
        """The last good figures of a storage."""

    def quick(self, storeid: str) -> set[str]:
        """Methods of a storage that took no time when they were last called."""

    def forget(self, connection: Connection) -> None:
        """The connection ended."""


class Connection:
    """Serves one accepted socket, whenever something has come."""

    def __init__(self, server: Service, sock: socket.socket):
        self.draining = False
        self.watching = False
        self.takes_parts = False
        self._server = server
        self._frames = FrameSocket(sock)
        self._idle = False
        self._known = False
        self._caller = _NOBODY
        self._sections: dict[object, Section] = {}

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._frames.fileno()

    def serve(self) -> bool:
        """Take what has come; False when the caller has hung up or broken the protocol."""
        try:
            if self._caller is _NOBODY:
                server = self._server
                greeted = greet(self._frames, server.host.type, server.callers)
                self._caller, self.takes_parts = greeted
                goes_on = True
            else:
                goes_on = self._one_call()
            while goes_on and self._frames.pending:
                goes_on = self._one_call()
            self._idle = True  # first: either we see that we drain, or ``drain`` that we are idle
            if self.draining:
                self._frames.shut(socket.SHUT_RD)
            return goes_on
        except ProtocolError as err:
            logger.warning("%s: %s", self._caller.command or "unknown caller", err)
            self.refuse("protocol", str(err))
        except (EOFError, OSError):
            pass  # hung up: the normal end of a connection
        except BaseException:
            logger.exception("connection of %s failed", self._caller.command or "unknown caller")
        return False

    def close(self) -> None:
        """Hang up."""
        self._frames.close()
        self._server.forget(self)

    def refuse(self, kind: str, message: str) -> None:
        """An error that belongs to no call; the caller may be gone."""
        with contextlib.suppress(OSError):
            self._frames.send("error", 0, {"kind": kind, "message": message})

    def drain(self) -> None:
        """Take no further call, except what the caller had sent already.

        A socket shut down for reading gives away its queue first; from now on the caller gets
        EPIPE and asks our successor.
        """
        self.draining = True
        if self._idle:
            self._frames.shut(socket.SHUT_RD)

    def answer_for(self, running: Running) -> None:
        """The watcher's answer in place of a stuck plugin; the thread finds the socket shut."""
        self._frames.offer(running.before + self._late(running), wait=0.1)
        self._frames.shut(socket.SHUT_RDWR)

    def tell(self, running: Running, level: str, line: str) -> None:
        """A log line of a running call."""
        if running.lines is not None and len(running.lines) < MAX_LINES:
            running.lines.append((level, line))
        self._frames.send("log", running.number, level, raw(line))

    def send_part(self, running: Running, rows: list[dict[str, object]]) -> None:
        """Rows of a running call's answer before the rest of it."""
        try:
            self._frames.send("part", running.number, rows)
        except OSError:
            raise Cancelled from None  # the caller is gone
        running.checkpoint()
        if running.lines is not None:
            running.rows += tuple(rows)

    def show_life(self, number: int) -> None:
        """An alive frame, unless the caller isn't reading anyway."""
        self._frames.offer(codec.encode("alive", number))

    # --- calls ---------------------------------------------------------------------------------

    def _one_call(self) -> bool:
        """Receive and answer one call, and what comes with it; False when there is no next one."""
        message = self._frames.receive()
        self._idle = False
        if message[0] != "call":
            if message[0] == "cancel":
                return True  # its call ended before we read this
            raise ProtocolError(f"expected call, got {message[0]}")
        _, number, method, storeid, scfg, args, about = message
        section = self._sections.get(storeid)
        if section is None or section.received != scfg:
            section = self._section(storeid, scfg)
        if not self._known or about.__class__ is dict:
            # Its caller may have given up, in the listening socket or by its alarm: nothing must
            # begin then.  Others have no reason to, and a look hands the interpreter over.
            self._known = True
            if self._frames.hung_up(0):
                return False
        names = _NAMES.get(method) or self._names(method)
        name = names[0]
        limit = self._server.host.limit(name)
        running = Running(self, number, name, section.storeid, self._caller, limit)
        ends = None
        if about.__class__ is int:
            running.asked = about
        elif about:
            ends = self._told(running, field("call", "meta", mapping, about))
        if len(names) > 1:
            return self._run_row(running, section, args, names, ends)
        outcome = self._run(running, section, args)
        if outcome is None:
            return False
        self._frames.send_frame(outcome[0])
        return True

    def _names(self, method: object) -> tuple[str, ...]:
        """The methods that a call names, if it isn't one of the table or a row known by now."""
        names = tuple(text(method).split(" "))
        self.watching = names == ("_trace",)
        if len(_NAMES) < _MAX_NAMES and METHODS.keys() >= set(names):
            _NAMES[method] = names
        return names

    def _told(self, running: Running, meta: dict[str, Any]) -> float | None:
        """What is said of a call beside its arguments; returns when the caller's alarm goes off."""
        running.asked = meta.get("operation")
        if meta.get("fd"):
            self._server.crew.aside(self)  # it comes when the caller has read that we wait for it
            running.fd = self._frames.receive_fd(running.number)
        alarm = meta.get("remaining")
        if not isinstance(alarm, int | float):
            return None
        ends = running.started + alarm
        running.hurry(ends)
        return ends

    def _run_row(
        self,
        running: Running,
        section: Section,
        args: Arguments,
        names: Sequence[str],
        ends: float | None,
    ) -> bool:
        """Calls in a row, the first of which is *running*; they end with the first no."""
        asked, frames, following = running.asked, b"", iter(names[1:])
        while outcome := self._run(running, section, args):
            frame, goes_on = outcome
            name = next(following, None) if goes_on else None
            if name is None:
                self._frames.send_frame(frames + frame)
                return True
            if not codec.says_yes(frame):  # the next answer says that this was one
                frames += frame
            if self._frames.hung_up(0):
                break
            limit, number = self._server.host.limit(name), running.number + 1
            running = Running(self, number, name, section.storeid, self._caller, limit)
            running.before, running.asked, args = frames, asked, {}
            if ends is not None:
                running.hurry(ends)
        return False

    def _run(
        self, running: Running, section: Section, args: Arguments
    ) -> tuple[bytes, bool] | None:
        """The frame that answers a call, and whether the next one that came with it shall run.

        PVE wouldn't ask further after an error or a no.  None when the watcher has answered.
        """
        server, quick = self._server, running.method in section.quick
        if not quick:
            server.crew.aside(self)
        running.lines = [] if server.trace.sinks else None
        calls = server.watcher.running
        calls[running] = running  # first: either the watcher sees it, or we that it sleeps
        if not server.crew.watched:
            server.crew.ring()
        error, value, extra = None, None, NOTHING
        try:
            other = server.others.get(running.method)
            if other is not None:
                value, extra = other(running, section, args)
            else:
                value, extra = server.host.call(running, section.storeid, section, args)
            frame = codec.result(running.number, value, extra)
        except DeadlineExceeded as err:
            frame, error = self._late(running), {**describe(err), "message": str(err)}
        except BaseException as err:  # the thread must answer: a plugin may even raise SystemExit
            error = error_of(err, running, server.host.type, draining=self.draining)
            frame = codec.encode("error", running.number, error)
        ours = calls.pop(running, None) is not None
        if running.fd is not None:
            os.close(running.fd)
        if running.method[:1] != "_":  # the bridge's own questions: no calls of the plugin
            seconds = time.monotonic() - running.started
            if (seconds < QUICK_SECONDS) is not quick:
                (section.quick.discard if quick else section.quick.add)(running.method)
            server.metrics.count(running.method, seconds, error is not None)
            if running.lines is not None:
                outcome = _outcome(running, value, extra, error, ours)
                given = named(running.method, args)
                server.trace.publish(
                    running, running.storeid, dict(section), given, outcome, seconds
                )
        if not ours:
            while not running.answered:  # closing now would take the answer away
                time.sleep(0.001)
            return None
        return frame, error is None and value != 0

    def _section(self, storeid: object, received: object) -> Section:
        """The section of a storage, which is new or not what it was."""
        if len(self._sections) >= MAX_SECTIONS:
            self._sections.clear()
        section = field("call", "scfg", partial(Section, storeid), received)
        section.quick = self._server.quick(section.storeid)
        self._sections[storeid] = section
        return section

    def _late(self, running: Running) -> bytes:
        """What a caller gets when the time is up: the last known status, else an error."""
        method, storeid, limit = running.method, running.storeid, running.limit
        logger.warning("%s: %s took longer than %s s", storeid, method, limit)
        if method == "status":
            return codec.encode("result", running.number, self._server.last_status(storeid), {})
        message = f"storage '{storeid}': {method} got timeout" + (
            f" after {limit:g} s" if limit else ""
        )
        return codec.encode("error", running.number, {"kind": "timeout", "message": message})


def _outcome(
    running: Running, value: Any, extra: Extra, error: dict[str, object] | None, ours: bool
) -> dict[str, object]:
    """What a trace says of how a call ended."""
    if running.rows and error is None:
        value = [*running.rows, *value]
    told: dict[str, object] = {"result": value} if error is None else {"error": error}
    if extra:
        told["extra"] = extra
    return told if ours else {**told, "late": True}
