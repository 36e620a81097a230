# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The listening socket: handed over by systemd, or made here in the foreground."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from .errors import StorageError

SYSTEMD_FD: Final = 3
BACKLOG: Final = 512


def listening_socket(path: Path) -> socket.socket:
    """systemd's socket (LISTEN_FDS), else a new one at *path* in a directory only we can enter."""
    if is_inherited():
        os.set_inheritable(SYSTEMD_FD, False)  # or a plugin's children would hold it
        return socket.socket(fileno=SYSTEMD_FD)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as err:
        raise StorageError(f"can't listen on {path}: {err.strerror or err}") from None
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def is_inherited() -> bool:
    """Whether systemd has handed us the listening socket; it stays systemd's."""
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")
    return pid == str(os.getpid()) and count == "1"


def _remove_stale(path: Path) -> None:
    """Remove a dead server's socket; refuse to take a living one's place."""
    if not path.exists():
        return
    if not path.is_socket():
        raise StorageError(f"{path} is in the way: it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as err:
            raise StorageError(f"{path} is in the way: {err.strerror or err}") from None
    raise StorageError(f"a server is already listening on {path}")
