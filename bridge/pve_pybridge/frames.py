# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames on a connected socket: exact reads, whole writes, fields, descriptors, credentials."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from . import codec
from .errors import ProtocolError

T = TypeVar("T")

_CREDENTIALS: Final = struct.Struct("3i")
_length: Final = codec.HEADER.unpack_from
_AT_ONCE: Final = 4096
"""Bytes of nearly any call.  With many callers each read hands the interpreter to another one."""


class FrameSocket:
    """One end of a connection; sending is safe from several threads."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self.pending = b""
        """What was read and not yet taken, the beginning of the next message."""
        self._send_lock = threading.Lock()
        hangup = select.poll()
        hangup.register(sock, 0)  # POLLHUP is always told
        self.hung_up = hangup.poll
        """``hung_up(0)``: whether the peer has closed its end completely."""

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def shut(self, how: int) -> None:
        """Shut down one or both directions; the peer may have done so already."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(how)

    def check_peer(self) -> None:
        """Only root and our own user may call (D13), whatever the socket's mode says."""
        data = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(data)
        if uid not in (0, os.geteuid()):
            raise ProtocolError(f"user {uid} (process {pid}) may not call storage plugins")

    def receive(self) -> list[Any]:
        """The next message; EOFError when the peer hung up."""
        data = self.pending
        if not data:
            data = self._sock.recv(_AT_ONCE)
            if len(data) > 4 and _length(data)[0] == len(data) - 4:  # nearly always
                return codec.decode(data[4:])
        if len(data) < 4:
            data = self._rest(data, 4)
        size = 4 + codec.decode_length(data)
        if len(data) < size:
            data += self._sock.recv(size - len(data))
            if len(data) < size:
                data = self._rest(data, size)
        self.pending = data[size:]
        return codec.decode(data[4:size])

    def _rest(self, chunk: bytes, size: int) -> bytes:
        buffer = bytearray(chunk)
        while len(buffer) < size:
            if not chunk:
                raise EOFError
            chunk = self._sock.recv(min(size - len(buffer), 1 << 20))
            buffer += chunk
        return bytes(buffer)

    def receive_fd(self, number: int) -> int:
        """The descriptor of a call, which comes when it's asked for: reading ahead loses others."""
        if self.pending:
            raise ProtocolError("call announces a file descriptor, but something else follows")
        self.send("alive", number)
        data, descriptors, _, _ = socket.recv_fds(self._sock, 1, 1)
        if not data:
            raise EOFError
        if len(descriptors) != 1:
            raise ProtocolError("call announces a file descriptor, but none came with it")
        return descriptors[0]

    def send(self, kind: str, *values: object) -> None:
        """Encode and send one frame."""
        self.send_frame(codec.encode(kind, *values))

    def send_frame(self, frame: bytes) -> None:
        """Send one frame, waiting for the peer if need be."""
        self._send_lock.acquire()  # ``with`` takes twice as long, in each call
        try:
            self._sock.sendall(frame)
        finally:
            self._send_lock.release()

    def offer(self, frame: bytes, wait: float = 0) -> None:
        """Send a frame unless the peer isn't reading; never between the halves of another one."""
        if not self._send_lock.acquire(timeout=wait):
            return
        try:
            sent = self._sock.send(frame, socket.MSG_DONTWAIT)
            self._sock.sendall(frame[sent:])
        except OSError:
            pass
        finally:
            self._send_lock.release()


def field(frame: str, name: str, convert: Callable[[object], T], value: object) -> T:
    """One field of a message; ProtocolError says what is wrong with it."""
    try:
        return convert(value)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"{frame} frame: '{name}' {err}") from None
