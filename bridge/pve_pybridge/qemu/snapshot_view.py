# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A snapshot inside a qcow2 image, served read-only over NBD by a qemu-nbd of its own.

A qemu-storage-daemon can't open one, qemu-nbd can.  It takes no locks, for the image may be in use:
what belongs to a snapshot is never written again, and no snapshot is deleted while it is served.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from ..errors import StorageError
from ..storage import Storage
from . import detached
from .daemon import LEAVE_SECONDS, POLL_SECONDS, clients, node_name

_QEMU_NBD: Final = "/usr/bin/qemu-nbd"


class SnapshotView:
    """The server of *label*, ``volume@snapshot``, with its socket in *directory*."""

    def __init__(self, storage: Storage[Any], directory: Path, unit: str, label: str, image: str):
        self.socket = directory / f"snapshot-{node_name(label)}"
        self._pidfile = directory / f"snapshot-{node_name(label)}.pid"
        self._unit = f"{unit}-{node_name(label)}"
        self._storage = storage
        self._label = label
        self._image = image

    def is_served(self) -> bool:
        """Whether the server runs."""
        return detached.pid_of(self._pidfile) is not None

    def serve(self) -> None:
        """Start the server unless it runs."""
        if self.is_served():
            return
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._image.replace(",", ",,")
        snapname = self._label.partition("@")[2]
        command = [
            *(_QEMU_NBD, "--fork", "--persistent", "--read-only", "--shared=0"),
            *(f"--pid-file={self._pidfile}", f"--socket={self.socket}"),
            *(f"--export-name={self._label}", f"--load-snapshot=snapshot.name={snapname}"),
            "--image-opts",
            f"driver=qcow2,file.driver=file,file.locking=off,file.filename={file}",
        ]
        detached.start(self._storage, self._unit, command, self._pidfile)

    def stop(self) -> None:
        """End the server unless somebody is connected; closing takes clients a moment."""
        ends = time.monotonic() + LEAVE_SECONDS
        while clients(self.socket):
            if time.monotonic() > ends:
                raise StorageError(f"snapshot '{self._label}' is in use")
            time.sleep(POLL_SECONDS)
        detached.stop(self._storage, self._pidfile)
        self.socket.unlink(missing_ok=True)
