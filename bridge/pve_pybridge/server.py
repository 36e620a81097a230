# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve one plugin on a listening Unix socket: many connections, one call at a time on each.

Started by ``pve-pybridge serve``.  The server knows its connections and running calls; it drains on
request.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from .callers import Callers
from .connection import Connection, Runs
from .crew import Crew
from .host import Extra, Serves
from .inflight import Inflight
from .methods import Arguments
from .metrics import Metrics
from .section import Section
from .trace import Trace
from .version import __version__
from .watch import Running, Watcher

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 1024
_MAX_STORAGES: Final = 1024
"""Whose quick methods are known; more IDs are no storages of a node."""
_STACK_BYTES: Final = 1 << 20


class Server:
    """Accepts connections for one plugin until ``close``."""

    def __init__(self, host: Serves, listener: socket.socket, trace: Path | None = None):
        self.host = host
        self.others: Mapping[str, Runs] = {
            **{name: self._status if name == "status" else self._shared for name in host.shared},
            "_stats": self._stats,
            "_trace": self._trace,
        }
        self.trace = Trace(host.type, self._about, lambda: host.secrets, trace)
        self.crew = Crew()
        self.watcher = Watcher(self.crew)
        self.metrics = Metrics()
        self.callers = Callers()
        self._inflight = Inflight()
        self._listener = listener
        self._connections: set[Connection] = set()
        self._quick: dict[str, set[str]] = {}
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.closing = False

    def serve_forever(self) -> None:
        """Accept and serve, in the main thread; returns after ``close``."""
        # The kernel may give a signal to any thread, as to one that is starting a process.  That
        # interrupts no poll() of ours: Python's handler would wait for the next caller.
        signal.set_wakeup_fd(self._wake)
        threading.stack_size(_STACK_BYTES)
        _allow_descriptors()
        self.crew.start()
        self.watcher.start()
        self._listener.setblocking(False)  # another process may take what poll announced
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while not self.closing:
            ready = [fd for fd, _ in poll.poll()]
            if self._woken in ready:
                os.read(self._woken, 512)
                continue
            try:
                peer, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as err:
                logger.error("accept failed: %s", err)
                time.sleep(0.1)
                continue
            peer.setblocking(True)
            self._adopt(Connection(self, peer))

    def _adopt(self, connection: Connection) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            connection.refuse("busy", f"{MAX_CONNECTIONS} callers are connected, no more are taken")
            connection.close()
            return
        self._connections.add(connection)
        try:
            self.crew.add(connection)
        except OSError as err:
            connection.refuse("busy", f"the server can't watch one more caller: {err}")
            connection.close()

    def close(self) -> None:
        """Stop accepting; safe in a signal handler.  The listening socket may be systemd's."""
        self.closing = True
        os.write(self._wake, b"\0")

    def drain(self, seconds: float) -> bool:
        """After ``close``: let running calls finish, for at most *seconds*; then cancel the rest.

        True when everything ended by itself.  Callers that come now wait in the listening socket.
        """
        for connection in list(self._connections):
            connection.drain()
        started = now = time.monotonic()
        while self._busy() and now < started + seconds:
            time.sleep(0.01 if now < started + 10 else 0.2)
            now = time.monotonic()
        self.trace.close()
        if not self._busy():
            return True
        for running in self.watcher.calls():
            logger.warning("%s: %s cancelled by the drain", running.storeid, running.method)
            running.cancelled.set()
        ends = time.monotonic() + 5
        while self._busy() and time.monotonic() < ends:
            time.sleep(0.01)
        return False

    def _busy(self) -> bool:
        """Whether anybody is connected who waits for an answer; who watches a trace doesn't."""
        return any(not connection.watching for connection in list(self._connections))

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        self._connections.discard(connection)

    # --- calls ---------------------------------------------------------------------------------

    def _stats(self, call: Running, scfg: Section, args: Arguments) -> tuple[Any, Extra]:
        return self.stats(), {}

    def _trace(self, call: Running, scfg: Section, args: Arguments) -> tuple[Any, Extra]:
        self.trace.watch(call, scfg.storeid)
        return None, {}

    def _shared(self, call: Running, scfg: Section, args: Arguments) -> tuple[Any, Extra]:
        """Identical queries share one run."""
        key = (call.method, scfg.storeid, scfg.words, repr(args) if args else "")
        answer: tuple[Any, Extra] = self._inflight.share(
            key, call, partial(self.host.call, call, scfg.storeid, scfg, args)
        )
        return answer

    def _status(self, call: Running, scfg: Section, args: Arguments) -> tuple[Any, Extra]:
        """One of them whose answers are remembered."""
        storeid, by_pve = scfg.storeid, call.host.apiver > 0  # not doctor's own questions
        if by_pve:
            self.metrics.status(storeid, good=False)
        answer = self._shared(call, scfg, args)
        self._inflight.remember(storeid, answer[0])
        if by_pve:
            self.metrics.status(storeid, good=True)
        return answer

    def last_status(self, storeid: str) -> object:
        """The last good figures of a storage that doesn't answer in time, None when too old."""
        return self._inflight.last_known(storeid)

    def quick(self, storeid: str) -> set[str]:
        """Methods of a storage that took no time when they were last called."""
        if len(self._quick) >= _MAX_STORAGES:
            self._quick.clear()
        return self._quick.setdefault(storeid, set())

    def stats(self) -> dict[str, object]:
        """For ``pve-pybridge stats``: what runs, since when, for whom; counts and times."""
        now = time.monotonic()
        running = [
            {
                "method": one.method,
                "storeid": one.storeid,
                "age": round(now - one.started, 3),
                "pid": one.host.pid,
                "command": one.host.command,
                "task": one.host.task,
            }
            for one in self.watcher.calls()
            if not one.method.startswith("_")
        ]
        return {
            "type": self.host.type,
            "pid": os.getpid(),
            "connections": len(self._connections),
            "threads": threading.active_count(),
            "version": __version__,
            "running": running,
            "callers": self.callers.snapshot(),
            **self.metrics.snapshot(),
        }

    def _about(self) -> dict[str, object]:
        """What a trace begins with: with the manifest it can be replayed without the plugin."""
        facts = self.host.facts()
        return {
            "type": self.host.type,
            "bridge": __version__,
            "pid": os.getpid(),
            "manifest": facts,
        }


def _allow_descriptors() -> None:
    """A socket for each connection and as many again for what plugins open: 1024 is the default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
