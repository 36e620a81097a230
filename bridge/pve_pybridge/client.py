# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A small client of the wire, for the command line: one connection, call after call."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import codec
from .coerce import plain, text
from .errors import StorageError


class CallFailed(StorageError):
    """What the server answered to a call that failed; *error* is the whole of it."""

    def __init__(self, error: Mapping[str, Any]):
        super().__init__(str(error.get("message", "unknown error")))
        self.error = dict(error)
        self.kind = str(error.get("kind", "internal"))


class Disconnected(StorageError):
    """The server closed the connection."""


def _to_stderr(level: str, message: str) -> None:
    print(message, file=sys.stderr)


class Client:
    """A connection to the server of one storage type; StorageError says why there is none."""

    def __init__(
        self,
        type_: str,
        path: Path,
        timeout: float = 30.0,
        hello: Mapping[str, object] | None = None,
    ):
        self._number = 0
        self._hello = dict(hello or {})
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        try:
            self._sock.connect(str(path))
        except OSError as err:
            self._sock.close()
            reason = err.strerror or str(err)
            raise StorageError(
                f"the server for type '{type_}' is not running ({path}: {reason})"
            ) from None
        try:
            self.about = self._greet(type_)
        except BaseException:
            self._sock.close()
            raise

    def _greet(self, type_: str) -> Any:
        command = f"pve-pybridge {sys.argv[1]}" if len(sys.argv) > 1 else "python"  # no secrets
        about = {"wire": codec.WIRE_VERSION, "type": type_, "pid": os.getpid(), "command": command}
        self._send("hello", {**about, **self._hello})
        kind, fields = self._receive()
        if kind != "welcome":
            raise StorageError(
                text(fields["error"]["message"]) if kind == "error" else f"got {kind}"
            )
        return plain(fields["about"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._sock.close()

    def call(
        self,
        method: str,
        storeid: str = "",
        scfg: Mapping[str, object] | None = None,
        **args: object,
    ) -> Any:
        """The answer of one call; StorageError with the server's own words when it fails."""
        return self.ask(method, storeid, scfg, args)[0]

    def ask(
        self,
        method: str,
        storeid: str = "",
        scfg: Mapping[str, object] | None = None,
        args: Mapping[str, object] | None = None,
        *,
        fd: int | None = None,
        operation: str | None = None,
        on_log: Callable[[str, str], None] = _to_stderr,
    ) -> tuple[Any, dict[str, Any]]:
        """Answer and extra of one call; a descriptor goes along, log lines go to *on_log*.

        CallFailed, a StorageError, has all that the server said of a failure.
        """
        self._number += 1
        meta: dict[str, object] = {} if operation is None else {"operation": operation}
        if fd is not None:
            meta["fd"] = 1
        call = (method, storeid, dict(scfg or {}), dict(args or {}), meta)
        self._send("call", self._number, *call)
        while True:
            kind, fields = self._receive()
            if kind == "alive" and fd is not None:  # the server asks for it
                socket.send_fds(self._sock, [b"\0"], [fd])
                fd = None
            if kind == "result":
                return plain(fields["value"]), plain(fields["extra"])
            if kind == "error":
                raise CallFailed(plain(fields["error"]))
            if kind == "log":
                on_log(text(fields["level"]), text(fields["message"]))

    def _send(self, kind: str, *values: object) -> None:
        self._sock.sendall(codec.encode(kind, *values))

    def _receive(self) -> tuple[str, dict[str, Any]]:
        length = codec.decode_length(self._exactly(codec.HEADER.size))
        message = codec.decode(self._exactly(length))
        return message[0], codec.named(message)

    def _exactly(self, size: int) -> bytes:
        buffer = b""
        while len(buffer) < size:
            try:
                chunk = self._sock.recv(size - len(buffer))
            except TimeoutError:
                raise StorageError("the plugin server doesn't answer") from None
            if not chunk:
                raise Disconnected("the plugin server closed the connection")
            buffer += chunk
        return buffer
