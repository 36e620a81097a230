# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Read any image format as the raw disk it is, front to back, without a temporary copy.

``qemu-img convert`` and ``qemu-img dd`` set the size of what they write and fail on pipes and
sockets, unless they are patched.  A converted temporary file would need the whole disk's space
once more.  So qemu-nbd, which comes with qemu-img everywhere, serves the image on a Unix socket,
and this module, a client for exactly that, reads it.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from ..errors import StorageError
from ..storage import Storage

_QEMU_NBD: Final = "/usr/bin/qemu-nbd"
_CHUNK: Final = 1 << 20
_POLL_SECONDS: Final = 0.05

# https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, newstyle negotiation
_GREETING: Final = b"NBDMAGICIHAVEOPT"
_CLIENT_FLAGS: Final = 0b11  # fixed newstyle, no zeroes after the export's flags
_EXPORT_NAME: Final = struct.pack(">8sII", b"IHAVEOPT", 1, 0)
_REQUEST: Final = struct.Struct(">IHHQQI")
_REPLY: Final = struct.Struct(">IIQ")
_READ, _DISCONNECT = 0, 2
_REQUEST_MAGIC: Final = 0x25609513
_REPLY_MAGIC: Final = 0x67446698


def read_image(storage: Storage[Any], path: str, format: str, size: int) -> Iterator[bytes]:
    """The first *size* bytes of the disk in image *path*, in chunks of 1 MiB."""
    with (
        tempfile.TemporaryDirectory(prefix="pve-pybridge-") as directory,
        ThreadPoolExecutor(1) as pool,
    ):
        address = f"{directory}/nbd"
        command = [_QEMU_NBD, "--read-only", f"--format={format}", f"--socket={address}", path]
        server = pool.submit(storage.run, command)
        with _connect(storage, address, server) as connection:
            served = _negotiate(storage, connection)
            if served < size:
                raise StorageError(f"image '{path}' has {served} bytes instead of {size}")
            for offset in range(0, size, _CHUNK):
                yield _read(storage, connection, offset, min(_CHUNK, size - offset))
            connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        server.result()


def _connect(storage: Storage[Any], address: str, server: Future[Any]) -> socket.socket:
    """A connection, as soon as the server listens; the server's own failure if it ended instead."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_POLL_SECONDS)
        while True:
            try:
                connection.connect(address)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                if server.done():
                    server.result()
                    raise StorageError("qemu-nbd ended before it was used") from None
                storage.sleep(_POLL_SECONDS)
    except BaseException:
        connection.close()
        raise


def _negotiate(storage: Storage[Any], connection: socket.socket) -> int:
    """Ask for the default export; returns its size."""
    if not _receive(storage, connection, len(_GREETING) + 2).startswith(_GREETING):
        raise StorageError("qemu-nbd doesn't speak the newstyle protocol")
    connection.sendall(struct.pack(">I", _CLIENT_FLAGS) + _EXPORT_NAME)
    size, _flags = struct.unpack(">QH", _receive(storage, connection, 10))
    return int(size)


def _read(storage: Storage[Any], connection: socket.socket, offset: int, length: int) -> bytes:
    connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, offset, offset, length))
    magic, error, handle = _REPLY.unpack(_receive(storage, connection, _REPLY.size))
    if (magic, handle) != (_REPLY_MAGIC, offset):
        raise StorageError("qemu-nbd: unexpected reply")
    if error:
        raise StorageError(f"can't read image at offset {offset} - {os.strerror(error)}")
    return _receive(storage, connection, length)


def _receive(storage: Storage[Any], connection: socket.socket, length: int) -> bytes:
    """Exactly *length* bytes; notices within the socket's timeout that the call was cancelled."""
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        try:
            count = connection.recv_into(view)
        except TimeoutError:
            storage.checkpoint()
            continue
        if count == 0:
            raise StorageError("qemu-nbd closed the connection")
        view = view[count:]
    storage.checkpoint()
    return bytes(buffer)
