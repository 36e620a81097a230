# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The bytes of a transfer: the 8-byte header, and writing to descriptors that may be slow or gone.

The other end is a pipe, a socket or a file of PVE's; it can't be rewound, and nothing is read from
it beyond what was asked for: the command that takes over afterwards must find the rest.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Sequence
from typing import Any, Final

from .errors import StorageError
from .storage import Storage

_HEADER: Final = struct.Struct("<Q")
_POLL_MILLISECONDS: Final = 100
_CHUNK: Final = 64 << 10
_TAR_END: Final = bytes(1024)
_ATOMIC: Final = select.PIPE_BUF


def write_header(storage: Storage[Any], fd: int, size: int) -> None:
    """The ``+size`` of a stream format: the volume's size in bytes."""
    write(storage, fd, _HEADER.pack(size))


def read_header(storage: Storage[Any], fd: int) -> int:
    """The size a stream begins with."""
    data = b""
    while len(data) < _HEADER.size:
        _wait(storage, fd, select.POLLIN)
        part = os.read(fd, _HEADER.size - len(data))
        if not part:
            raise StorageError("import: no size found in export header, aborting.")
        data += part
    return int(_HEADER.unpack(data)[0])


def write(storage: Storage[Any], fd: int, data: bytes) -> None:
    """Write all of *data*, but notice a cancelled call while the reader is slow.

    The descriptor is somebody else's and may not be made non-blocking.  A pipe or socket that
    polls as writable takes a page without blocking, so that is how much it gets at a time.
    """
    view = memoryview(data)
    while view:
        _wait(storage, fd, select.POLLOUT)
        try:
            written = os.write(fd, view[:_ATOMIC])
        except OSError as err:
            raise StorageError(f"writing the stream failed - {err.strerror}") from None
        view = view[written:]


def feed_tar(storage: Storage[Any], fd: int, command: Sequence[str]) -> None:
    """Run tar on the rest of the stream, and see that it has an end.

    tar takes end of input between two files for the end of the archive, which would make half a
    container of a broken connection.  A whole archive ends with two blocks of zeros.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  2 ms for every server

    reading, writing = os.pipe()
    tail, tar_is_done = b"", False
    with ThreadPoolExecutor(1) as pool:
        tar = pool.submit(storage.run, command, stdin=reading)
        tar.add_done_callback(lambda _: os.close(reading))
        try:
            while chunk := _read(storage, fd):
                tail = (tail + chunk)[-len(_TAR_END) :]
                try:
                    write(storage, writing, chunk)
                except StorageError:
                    tar_is_done = True
                    break
        finally:
            os.close(writing)
        tar.result()
    if not tar_is_done and tail != _TAR_END:
        raise StorageError("import: tar stream ended early")


def _read(storage: Storage[Any], fd: int) -> bytes:
    _wait(storage, fd, select.POLLIN)
    return os.read(fd, _CHUNK)


def _wait(storage: Storage[Any], fd: int, event: int) -> None:
    poller = select.poll()
    poller.register(fd, event)
    while not poller.poll(_POLL_MILLISECONDS):
        storage.checkpoint()
