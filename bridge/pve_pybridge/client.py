# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A small client of the wire, for the command line: one connection, call after call."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import codec
from .coerce import plain, text
from .errors import StorageError


class Client:
    """A connection to the server of one storage type; StorageError says why there is none."""

    def __init__(self, type_: str, path: Path, timeout: float = 30.0):
        self._number = 0
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
        command = " ".join(sys.argv) or "python"
        self._send(
            "hello",
            {"wire": codec.WIRE_VERSION, "type": type_, "pid": os.getpid(), "command": command},
        )
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
        self._number += 1
        self._send("call", self._number, method, storeid, dict(scfg or {}), args, {})
        while True:
            kind, fields = self._receive()
            if kind == "result":
                return plain(fields["value"])
            if kind == "error":
                raise StorageError(text(fields["error"]["message"]))
            if kind == "log":
                print(text(fields["message"]), file=sys.stderr)

    def _send(self, kind: str, *values: object) -> None:
        self._sock.sendall(codec.encode(kind, *values))

    def _receive(self) -> tuple[str, dict[str, Any]]:
        return codec.decode(self._exactly(codec.decode_length(self._exactly(codec.HEADER.size))))

    def _exactly(self, size: int) -> bytes:
        buffer = b""
        while len(buffer) < size:
            try:
                chunk = self._sock.recv(size - len(buffer))
            except TimeoutError:
                raise StorageError("the plugin server doesn't answer") from None
            if not chunk:
                raise StorageError("the plugin server closed the connection")
            buffer += chunk
        return buffer
