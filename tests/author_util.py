# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A plugin on files, and commands in the background, for the tests of the author's tools."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bridge_util import BRIDGE, Node

TRAY = '''
"""A storage on files, with a secret, for tests of the command line."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pve_pybridge import Secret, Status, Storage, StorageConfig, StorageError, StoragePlugin
from pve_pybridge import Volume, option, secret


@dataclass(frozen=True, kw_only=True)
class TrayConfig(StorageConfig):
    folder: str = option("Where the volumes are", fixed=True)
    slow: float = option("Seconds that an activation takes", default=0.0)
    token: Secret | None = secret("Token of the API")


Store = Storage[TrayConfig]


class Tray(StoragePlugin[TrayConfig]):
    type = "tray"

    def path(self, storage, volname, snapname):
        return f"{storage.config.folder}/{volname}"

    def status(self, storage):
        return Status(total=1000, avail=600, used=400)

    def list_images(self, storage, vmid, vollist):
        files = sorted(Path(storage.config.folder).glob(f"vm-{vmid or '*'}-*"))
        return [Volume(volname=f.name, format="raw", size=f.stat().st_size) for f in files]

    def alloc_image(self, storage, vmid, format, name, size):
        name = name or f"vm-{vmid}-disk-{len(self.list_images(storage, vmid, None))}"
        with open(self.path(storage, name, None), "xb") as file:
            file.truncate(size)
        return name

    def free_image(self, storage, volname, is_base, format):
        os.unlink(self.path(storage, volname, None))

    def activate_volume(self, storage, volname, snapname, hints):
        storage.log(f"activating {volname} for Windows: {hints.guest_is_windows}")
        storage.sleep(storage.config.slow)

    def deactivate_volume(self, storage, volname, snapname):
        token = storage.secret("token")
        storage.log("login at https://array/?token=" + quote("" + token))
        raise StorageError("the array refused 'Bearer " + token + "'")

    def volume_export(
        self, storage, fh, volname, format, snapshot, base_snapshot, with_snapshots
    ):
        os.write(fh, Path(self.path(storage, volname, None)).read_bytes())

    def volume_import(
        self, storage, fh, volname, format, snapshot, base_snapshot, with_snapshots, allow_rename
    ):
        with open(fh, "rb", closefd=False) as stream:
            Path(self.path(storage, volname, None)).write_bytes(stream.read())

    def get_volume_attribute(self, storage, volname, attribute):
        return "Größe ✓"
'''


class Running:
    """A command of ours in the background; what it prints is in a file."""

    def __init__(self, node: Node, *args: str, wait_for: str = ""):
        self.out = node.base / f"{args[0]}-{time.monotonic_ns()}.out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*BRIDGE, *args],
                env={**os.environ, **node.env, "COLUMNS": "110"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        node.on_exit(self.stop)
        if wait_for:
            self.until(wait_for)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.out.read_text()

    def until(self, words: str, times: int = 1) -> None:
        """Wait until it has printed *words* (so many times)."""
        wait(lambda: self.text.count(words) >= times, lambda: self.text)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """End it; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(20)


def wait(condition: Callable[[], bool], tell: Callable[[], str] = str, seconds: float = 30) -> None:
    """Until *condition* holds; AssertionError with what *tell* says when it never does."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, tell()
        time.sleep(0.02)


def tray(node: Node) -> Path:
    """The plugin's file."""
    file = node.base / "tray.py"
    file.write_text(TRAY)
    (node.base / "store").mkdir(exist_ok=True)
    return file
