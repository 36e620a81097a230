# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The storage a method is called for: its ID, typed configuration, and the call's own services.

One object per call.  Through it a plugin logs to the caller's task log, reports progress, runs
commands that die with the call, reads secrets, and registers what to undo if the call fails.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic

from . import secrets
from .config import ConfigT, Secret, options_of
from .errors import Cancelled, DeadlineExceeded, StorageError
from .model import Host
from .paths import etc_pve

if TYPE_CHECKING:
    from . import process

logger = logging.getLogger(__name__)

NOBODY: Final = Host()
"""The caller of a call that no PVE process has made."""
UNDO_SECONDS: Final = 60.0
"""How long one clean-up of a failed call may take."""


_MAKING: Final = threading.Lock()


class Flag:
    """As much of ``threading.Event`` as a call needs; made for each call, waited for by few."""

    __slots__ = ("_closed", "_set")

    def __init__(self) -> None:
        self._set = False
        self._closed: threading.Lock | None = None

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Once and for all; wakes who waits."""
        self._set = True  # first: who waits from now on sees it
        if self._closed:
            with _MAKING, contextlib.suppress(RuntimeError):  # open already
                self._closed.release()

    def wait(self, timeout: float) -> bool:
        """Until it is set, at most *timeout* seconds; whether it is."""
        with _MAKING:
            if self._closed is None:
                self._closed = threading.Lock()
                self._closed.acquire()
        if not self._set and self._closed.acquire(timeout=max(timeout, 0)):
            self._closed.release()  # the next one who waits
        return self._set


class Call:
    """One running call, shared by the server (which cancels it) and the plugin (which asks).

    What most calls leave as it is stands in the class, so that making one stays cheap.
    """

    method: str
    """PVE's name of it."""
    host: Host
    """The PVE process that calls."""
    operation: str | None = None
    """Same for all calls of one PVE operation (PVE's ``$cache``); None when PVE gave none."""
    deadline: float | None = None
    """``time.monotonic()`` when the time is up, or None."""
    flag: Flag | None = None
    """``cancelled``, once somebody has asked for it."""
    waiting: int = 0
    """How many others wait for the outcome, so that it goes on without its caller."""
    volname: str = ""
    """The volume the call is about, empty if none."""
    lines: list[tuple[str, str]] | None = None
    """What was logged, for the trace; None when nobody traces."""
    in_parts: bool = False
    """Whether the caller takes a long list in parts."""
    rows: tuple[dict[str, object], ...] = ()
    """What ``part`` took, for the trace; stays empty when nobody traces."""
    secrets: set[str] | frozenset[str] = frozenset()
    """Secrets that the plugin has read during the call, so that none gets into a trace."""
    fd: int | None = None
    """The descriptor that came with the call (export, import)."""
    undo_until: float | None = None
    """While the call is being undone: ``time.monotonic()`` at which that, too, must end."""
    _undo: tuple[tuple[Callable[..., object], tuple[object, ...]], ...] = ()

    def __init__(
        self,
        method: str = "",
        host: Host = NOBODY,
        lines: list[tuple[str, str]] | None = None,
        secrets: set[str] | frozenset[str] = frozenset(),
        fd: int | None = None,
    ):
        self.method = method
        self.host = host
        self.lines = lines
        self.secrets = secrets
        self.fd = fd

    @property
    def cancelled(self) -> Flag:
        """Set when the caller went away; made when somebody asks, most calls end before."""
        if self.flag is None:  # setdefault: whoever else asks at this moment gets the same
            self.__dict__.setdefault("flag", Flag())
        flag: Flag = self.__dict__["flag"]
        return flag

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller went away."""
        return self.flag is not None and self.flag.is_set()

    def emit(self, level: str, line: str) -> None:
        """Pass on one line of what is logged during the call."""
        print(line, file=sys.stderr, flush=True)

    def part(self, rows: list[dict[str, object]]) -> None:
        """Pass on the first rows of a long list."""
        self.rows += tuple(rows)

    def on_failure(self, undo: Callable[..., object], *args: object) -> None:
        """Have ``undo(*args)`` run if the call fails; plugins use the storage's method."""
        self._undo += ((undo, args),)

    def undo(self) -> None:
        """Take back what the call has done, last in, first out.

        A failing clean-up must not hide the error that made it necessary: it is logged.
        """
        while self._undo:
            *before, (undo, args) = self._undo
            self._undo = tuple(before)
            self.undo_until = time.monotonic() + UNDO_SECONDS
            try:
                undo(*args)
            except Exception:
                logger.exception("clean-up %r failed", undo)

    def checkpoint(self) -> None:
        """Raise Cancelled when the caller went away, DeadlineExceeded when the time is up."""
        if self.undo_until is not None:  # a cancelled call's clean-up may run commands (C-060)
            if time.monotonic() > self.undo_until:
                raise DeadlineExceeded(f"{self.method}: no time left to clean up")
            return
        if self.is_cancelled:
            raise Cancelled
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineExceeded(f"{self.method}: time is up")


@dataclass(slots=True)
class Storage(Generic[ConfigT]):
    """One storage during one call."""

    storeid: str
    """The storage's ID, the word after the colon in storage.cfg."""
    type: str
    """The plugin's type."""
    config: ConfigT
    """The section, typed, as it is in storage.cfg now."""
    scfg: Mapping[str, object] = field(default_factory=dict)
    """The whole section as PVE decoded it, unknown properties included."""
    call: Call = field(default_factory=Call)
    """The running call itself."""

    @property
    def host(self) -> Host:
        """The PVE process that calls: APIVER, known hints, pid, command."""
        return self.call.host

    @property
    def deadline(self) -> float | None:
        """``time.monotonic()`` at which the call's time is up, None when it has no limit."""
        return self.call.deadline

    def log(self, message: str, level: str = "info") -> None:
        """One line on the caller's STDERR, which is the task log (never STDOUT: C-028)."""
        logger.info("%s: %s", self.storeid, message)
        for line in message.splitlines():
            self.call.emit(level, line)

    def warn(self, message: str) -> None:
        """A warning in the task log; the call goes on."""
        self.log(message, "warn")

    def progress(self, done: int, total: int, what: str = "transferred") -> None:
        """One progress line, the PVE way; *done* and *total* in bytes."""
        percent = 100.0 * done / total if total else 100.0
        self.log(f"{what} {_human(done)} of {_human(total)} ({percent:.2f}%)", "progress")

    def checkpoint(self) -> None:
        """Raise Cancelled when the caller went away, DeadlineExceeded when the time is up."""
        self.call.checkpoint()

    def sleep(self, seconds: float) -> None:
        """Wait, but raise Cancelled or DeadlineExceeded as ``checkpoint`` does, at once."""
        if self.call.undo_until is None:
            self.call.cancelled.wait(seconds)
        else:
            time.sleep(seconds)
        self.checkpoint()

    def on_failure(self, undo: Callable[..., object], *args: object) -> None:
        """Have ``undo(*args)`` run if this call fails or is cancelled; last in, first out.

        Each has a minute, may run commands, and if it fails hides no error: that is logged.
        """
        self.call.on_failure(undo, *args)

    def run(
        self,
        args: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = True,
        log_stderr: bool = False,
    ) -> process.Completed:
        """Run a command that ends with the call, without a shell; returns what it printed.

        *stdin*, *stdout*: descriptors to hand over (default: empty, captured).  *timeout* in
        seconds.  *log_stderr* forwards its standard error to the task log line by line.  Raises
        StorageError with the command's last words if its status isn't 0 (unless *check* is false),
        it can't be run or *timeout* is over; Cancelled, DeadlineExceeded as ``checkpoint`` does.
        """
        from . import process  # noqa: PLC0415  7 ms and 1 MiB for who runs no command

        return process.run(
            args,
            checkpoint=self.checkpoint,
            stdin=stdin,
            stdout=stdout,
            cwd=cwd,
            env=env,
            timeout=timeout,
            check=check,
            on_stderr=self.log if log_stderr else None,
        )

    def secret(self, field_name: str) -> Secret | None:
        """The stored secret of configuration field *field_name*, or None when there is none.

        Read anew each time.  StorageError when the configuration declares no such secret.
        """
        for item in options_of(type(self.config), self.type):
            if item.field == field_name and item.option.secret:
                found = secrets.read(self.storeid, item.property)
                if found:
                    self.call.secrets |= {"".join(found)}  # its str() would be ***
                return found
        raise StorageError(f"storage type '{self.type}' declares no secret '{field_name}'")

    def volid(self, volname: str) -> str:
        """PVE's volume ID of *volname* in this storage."""
        return f"{self.storeid}:{volname}"

    def guest_type(self, vmid: int) -> str | None:
        """``qemu`` or ``lxc`` for a guest of the cluster, None when it doesn't exist."""
        try:
            ids = json.loads((etc_pve() / ".vmlist").read_bytes())["ids"]
        except FileNotFoundError:
            return None
        entry = ids.get(str(vmid))
        return entry["type"] if entry else None


def _human(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
