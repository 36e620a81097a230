# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Both ends of the wire without the other half: a raw client, and a server that misbehaves."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from pve_pybridge import codec

HELLO: dict[str, Any] = {"wire": codec.WIRE_VERSION, "type": "probe", "apiver": 13, "apiage": 4}
SCFG: dict[str, Any] = {"type": "probe", "content": {"images": 1}}


class Client:
    """A raw connection to a plugin server."""

    first: dict[str, Any]
    """At the server's end: the call that came with ``hello``."""

    def __init__(self, path: Path, hello: dict[str, Any] | None = HELLO, timeout: float = 20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        if hello is not None:
            self.send("hello", hello)
            assert self.receive()[0] == "welcome"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: str, *values: object) -> None:
        """Send one message."""
        self.socket.sendall(codec.encode(kind, *values))

    def receive(self) -> tuple[str, dict[str, Any]]:
        """The next message; EOFError at the end."""
        message = codec.decode(self._exactly(codec.decode_length(self._exactly(4))))
        return message[0], codec.named(message)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def call(self, method: str, number: int = 1, scfg: object = SCFG, **args: object) -> Any:
        """Send a call and return its last message."""
        self.send("call", number, method, "p1", scfg, args, {})
        return self.answer()

    def answer(self) -> tuple[str, dict[str, Any]]:
        """The message that ends a call; what comes before is skipped."""
        while (message := self.receive())[0] in ("log", "alive"):
            pass
        return message

    def refused(self) -> str:
        """The error that isn't about a call, after which nothing may follow."""
        kind, fields = self.receive()
        assert (kind, fields["id"], fields["error"]["kind"]) == ("error", 0, "protocol")
        try:
            assert self.socket.recv(1) == b""
        except ConnectionResetError:
            pass  # we had sent more than it read
        return text(fields["error"]["message"])


def text(value: bytes | str) -> str:
    """A message as text."""
    return value.decode() if isinstance(value, bytes) else value


Behaviour = Callable[[Client], object]


class _Accepted(Client):
    """The server's end of a connection."""

    def __init__(self, peer: socket.socket):
        self.socket = peer
        self.socket.settimeout(20)


@contextlib.contextmanager
def fake_server(path: Path, *behaviours: Behaviour) -> Iterator[list[str]]:
    """Answer one connection after the other, each in its own way; yields what was called."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    called: list[str] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    peers: list[socket.socket] = []

    def serve() -> None:
        for behaviour in behaviours:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peers.append(peer)
            with contextlib.suppress(OSError, EOFError), _Accepted(peer) as connection:
                assert connection.receive()[0] == "hello"
                connection.first = connection.receive()[1]
                called.append(text(connection.first["method"]))
                behaviour(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield called
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        os.unlink(path)
        assert not thread.is_alive()


def welcome(connection: Client) -> None:
    """The proper answer to hello."""
    about = {"wire": codec.WIRE_VERSION, "table": 1, "type": "probe", "pid": os.getpid()}
    connection.send("welcome", about)


def after_welcome(data: bytes, linger: float = 0) -> Behaviour:
    """A behaviour: greet, send these bytes, hang up (or wait for the client to do so)."""

    def behave(connection: Client) -> None:
        welcome(connection)
        connection.socket.sendall(data)
        if linger:
            connection.socket.settimeout(linger)
            connection.socket.recv(1)

    return behave


def frame(*message: object) -> bytes:
    """A message of any shape, framed."""
    return codec.encode(*message) if message else codec.HEADER.pack(1) + b"\x90"  # type: ignore[arg-type]
