# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A small QMP client, for plugins that talk to a QEMU process, and for tests.

One object is one connection.  Events are skipped: whoever waits for something asks again, which
also works after the event was missed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from ..errors import StorageError

_POLL_SECONDS: Final = 0.05


class QmpError(StorageError):
    """The other side's refusal, in its own words."""


class HungUp(StorageError):
    """The other side ended the connection."""


class NotListening(StorageError):
    """Nobody listens on the socket: there is no such process."""


class Qmp:
    """A connection to the QMP socket *path*, ready for commands.

    *checkpoint* is asked while waiting and stops it by raising; *timeout* is the longest wait for
    an answer, in seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        checkpoint: Callable[[], None] = lambda: None,
        timeout: float = 30.0,
    ):
        self._path = os.fspath(path)
        self._checkpoint = checkpoint
        self._timeout = timeout
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_POLL_SECONDS)
        try:
            self._connect()
            self._greeting()
            self.command("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._socket.close()

    def command(self, name: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command and return what it returns; QmpError when it is refused."""
        request = {"execute": name, "arguments": dict(arguments or {})}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as err:
            raise StorageError(f"{self._path}: {name}: {err.strerror}") from None
        while True:
            answer = self._receive()
            if "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_closed(self) -> None:
        """Return when the other side has hung up, as it does after ``quit``."""
        ends = time.monotonic() + self._timeout
        while self._read(ends):
            pass

    def _connect(self) -> None:
        ends = time.monotonic() + self._timeout
        while True:
            try:
                self._socket.connect(self._path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotListening(f"nobody listens on '{self._path}'") from None
            except BlockingIOError:  # its queue is full
                self._wait(ends)
                time.sleep(_POLL_SECONDS)
            except OSError as err:
                raise StorageError(f"can't connect to '{self._path}': {err}") from None

    def _greeting(self) -> None:
        """It comes when the client before us has left; not at all from a process that is dying."""
        try:
            self._receive()
        except HungUp:
            raise NotListening(f"nobody answers on '{self._path}'") from None

    def _receive(self) -> dict[str, Any]:
        ends = time.monotonic() + self._timeout
        while b"\n" not in self._buffer:
            chunk = self._read(ends)
            if not chunk:
                raise HungUp(f"'{self._path}': connection closed")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self, ends: float) -> bytes:
        while True:
            try:
                return self._socket.recv(1 << 16)
            except TimeoutError:
                self._wait(ends)
            except ConnectionResetError:
                return b""

    def _wait(self, ends: float) -> None:
        self._checkpoint()
        if time.monotonic() > ends:
            raise StorageError(f"'{self._path}': no answer within {self._timeout:.0f} s")
