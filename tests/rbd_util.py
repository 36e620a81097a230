# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A node with ``pyrbd`` storages on a Ceph cluster: the one of tests/fakes, or a real one.

``PYRBD_CEPH_CONF`` names a real cluster's ceph.conf (with ``keyring`` in [global] and a pool
``rbd``), as tools/ceph-test makes one; each test then gets a namespace of its own there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge_util import PLUGINS, Node

REAL_CONF = os.environ.get("PYRBD_CEPH_CONF")
FSID = "1d9653a1-12da-4d62-af70-5ce4356aa32d"
CFG = "my $cfg = PVE::Storage::config();"


def fake_cluster(home: Path, etc: Path, namespaces: Sequence[str] = ()) -> None:
    """An empty cluster for tests/fakes in *home*, and the file by which nodes know it."""
    for directory in ("data", "sys", "dev"):
        (home / directory).mkdir(parents=True)
    fresh = {"images": {}, "maps": {}, "open": [], "next": 16, "fsid": FSID}
    fresh |= {"pools": ["rbd", "data"], "namespaces": [*namespaces], "map_options": ["rxbounce"]}
    (home / "state.json").write_text(json.dumps(fresh))
    (etc / "ceph.conf").write_text(f"[global]\n\tfsid = {FSID}\n")


class RbdNode(Node):
    """A node whose storages ``librbd`` and ``krbd`` share a pool."""

    def __init__(self, base: Path, namespace: str | None = None):
        super().__init__(base)
        self.home = base / "ceph"
        self.namespace = namespace
        self.pool = f"rbd/{namespace}" if namespace else "rbd"
        self.start()
        more = {"namespace": namespace} if namespace else {}
        self.add("librbd", "pyrbd", pool="rbd", content="images,rootdir", **more)

    def start(self) -> None:
        """Make the fake cluster and serve the plugin on it."""
        fake_cluster(self.home, self.etc, [self.pool] if self.namespace else [])
        self.env["FAKE_CEPH"] = str(self.home)
        self.serve(Path(__file__).parent / "plugins/pyrbd_fake.py")
        more = {"namespace": self.namespace} if self.namespace else {}
        self.add("krbd", "pyrbd", pool="rbd", content="images,rootdir", krbd=1, **more)

    # --- the cluster's side --------------------------------------------------------------------

    def state(self, **changes: Any) -> dict[str, Any]:
        """The fake cluster's state; *changes* are stored."""
        file = self.home / "state.json"
        state: dict[str, Any] = json.loads(file.read_text())
        if changes:
            file.write_text(json.dumps(state | changes))
        return state | changes

    def commands(self) -> list[list[str]]:
        """The commands since the last question, without how they reach the cluster."""
        found = [command for command, _ in self._argv()]
        (self.home / "argv").write_text("")
        return found

    def connections(self) -> list[list[str]]:
        """How they reach it."""
        return [connection for _, connection in self._argv()]

    def _argv(self) -> list[tuple[list[str], list[str]]]:
        found = []
        for line in (self.home / "argv").read_text().splitlines():
            name, *words = json.loads(line)
            at = 0
            while words[at] in ("-c", "-m", "--auth_supported", "-n", "--keyring"):
                at += 2
            found.append(([name, *words[at:]], words[:at]))
        return found

    def images(self) -> dict[str, Any]:
        """The images of the storages' pool or namespace."""
        return {
            path.rpartition("/")[2]: image
            for path, image in self.state()["images"].items()
            if path.rpartition("/")[0] == self.pool
        }

    # --- through PVE ---------------------------------------------------------------------------

    def ask(self, code: str, *args: object, **options: Any) -> Any:
        """A few lines of Perl with $cfg; they must not die."""
        return self.perl(f"{CFG} {code}", *args, **options).ok()

    def dies(self, code: str, *args: object) -> str:
        """The same where they must."""
        error = self.perl(f"{CFG} {code}; undef", *args).error
        assert error is not None
        return error

    def needs(self, function: str) -> None:
        """Skip the test on a host whose PVE::Storage is older than *function*."""
        if not self.ask("PVE::Storage->can($ARGS[0]) ? 1 : 0", function):
            pytest.skip(f"this host has no PVE::Storage::{function}")

    def alloc(self, vmid: int = 100, kib: float = 8192, name: str | None = None) -> str:
        """A new image in storage librbd."""
        code = "PVE::Storage::vdisk_alloc($cfg, 'librbd', $ARGS[0], 'raw', $ARGS[1], $ARGS[2])"
        found: str = self.ask(code, vmid, name, kib)
        return found

    def blockdev(
        self, volid: str, snap: str | None = None, hints: Any = None, machine: str | None = "10.0"
    ) -> dict[str, Any]:
        """What QEMU would be told."""
        self.needs("qemu_blockdev_options")
        options = {"hints": hints or {}, **({"snapshot-name": snap} if snap else {})}
        code = "PVE::Storage::qemu_blockdev_options($cfg, $ARGS[0], $ARGS[1], $ARGS[2])"
        found: dict[str, Any] = self.ask(code, volid, machine, options)
        return found

    def write(self, volid: str, byte: str) -> None:
        """As a guest would, at the image's start."""
        name = self.blockdev(volid)["image"]
        with (self.home / "data" / self.images()[name]["id"]).open("r+b") as file:
            file.write(byte.encode() * 4096)

    def read(self, volid: str, snap: str | None = None) -> str:
        """The first byte of an image or snapshot."""
        image = self.images()[self.blockdev(volid, snap)["image"]]
        number = f"@{image['snaps'][snap]['id']}" if snap else ""
        return (self.home / "data" / f"{image['id']}{number}").read_bytes()[:1].decode()


class RealNode(RbdNode):
    """The same on a real cluster, by librbd only, in a namespace of its own."""

    def __init__(self, base: Path):
        super().__init__(base, namespace=f"t{uuid.uuid4().hex[:8]}")

    def start(self) -> None:
        """Nothing is replaced: the plugin, the commands and the cluster are the real ones."""
        assert REAL_CONF is not None
        self.rbd("namespace", "create", self.pool)
        (self.etc / "ceph.conf").write_text(Path(REAL_CONF).read_text())
        self.serve(PLUGINS / "pyrbd.py")

    def rbd(self, *args: str) -> str:
        """Run rbd as the cluster's owner."""
        command = ["rbd", "-c", str(REAL_CONF), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def images(self) -> dict[str, Any]:
        """From the cluster."""
        found = json.loads(self.rbd("ls", "-l", self.pool, "--format", "json"))
        return {one["image"]: one for one in found if "snapshot" not in one}

    def write(self, volid: str, byte: str) -> None:
        """By QEMU, with the options PVE got."""
        self.qemu_io(self.blockdev(volid), f"write -P {ord(byte)} 0 4096", "flush")

    def read(self, volid: str, snap: str | None = None) -> str:
        """By QEMU, with the options PVE got."""
        told = self.qemu_io(self.blockdev(volid, snap), "read -v 0 16", read_only=bool(snap))
        match = re.search(r"^0+: +([0-9a-f]{2})", told, re.MULTILINE)
        assert match is not None, told
        return chr(int(match[1], 16))

    def qemu_io(self, blockdev: Mapping[str, Any], *steps: str, read_only: bool = False) -> str:
        """Open as QEMU would: protocol layer from PVE, raw format layer on top."""
        command = ["qemu-io", *(["-r"] if read_only else []), *qemu_commands(steps)]
        done = subprocess.run(
            [*command, image_name(blockdev)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


def qemu_commands(steps: Sequence[str]) -> list[str]:
    """Options of qemu-io."""
    return [word for step in steps for word in ("-c", step)]


def image_name(blockdev: Mapping[str, Any]) -> str:
    """A block device as QEMU's tools take it on the command line."""
    return "json:" + json.dumps({"driver": "raw", "file": dict(blockdev)})
