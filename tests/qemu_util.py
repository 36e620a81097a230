# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A real QEMU, storages to run it from, and what tests of both need."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from bridge_util import PLUGINS, Node
from pve_pybridge.qemu import detached
from pve_pybridge.qemu.qmp import NotListening, Qmp
from pve_pybridge.testing.perl import PerlResult

CFG = "my $cfg = PVE::Storage::config();"
MIB = 1 << 20
NBD_RUN = Path("/run/pve-pybridge-nbd")


def requires(*programs: str) -> pytest.MarkDecorator:
    """Skip without root or one of the programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "needs root"
    return pytest.mark.skipif(bool(missing) or os.geteuid() != 0, reason=reason)


FUSE = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs FUSE")
NBD = [requires("qemu-storage-daemon", "qemu-nbd", "qemu-img"), FUSE]
"""Marks of tests with pynbd's own daemons."""


def run(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that happens elsewhere."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "did not happen"
        time.sleep(0.01)


def qemu_io(path: str, *commands: str) -> str:
    """Read and write as a guest's QEMU would; a pattern that doesn't match is an error."""
    options = [option for command in commands for option in ("-c", command)]
    if not any(command.startswith(("write", "discard")) for command in commands):
        options.append("-r")
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *options, path], capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stdout, done.stdout
    return done.stdout


class Store:
    """One storage of a node, used as PVE uses it."""

    def __init__(self, node: Node, plugin: str, storeid: str, folder: Path, format_: str = "raw"):
        self.node = node
        self.perl: Callable[..., PerlResult] = node.perl
        self.type = plugin
        self.plugin = PLUGINS / f"{plugin}.py"
        self.server = node.serve(self.plugin)
        self.id = storeid
        self.folder = folder
        self.format = format_
        self.run = NBD_RUN / storeid

    def restart(self) -> None:
        """Start the plugin server again."""
        self.server = self.node.serve(self.plugin)

    def volid(self, volname: str) -> str:
        return f"{self.id}:{volname}"

    def call(self, function: str, *args: object) -> Any:
        """A function of PVE::Storage."""
        code = f"{CFG} PVE::Storage->can('{function}')->($cfg, @ARGS)"
        return self.perl(code, *args).ok()

    def alloc(self, kib: float, name: str | None = None, vmid: int = 100) -> str:
        code = f"{CFG} PVE::Storage::vdisk_alloc($cfg, @ARGS)"
        volid: str = self.perl(code, self.id, vmid, self.format, name, kib).ok()
        return volid

    def list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("vdisk_list", self.id)[self.id]
        return found

    def path(self, volid: str, snapname: str | None = None) -> str:
        code = f"{CFG} scalar(PVE::Storage::path($cfg, @ARGS))"
        path: str = self.perl(code, volid, snapname).ok()
        return path

    def path_of(self, name: str) -> str:
        """The URI of a pynbd volume, without asking."""
        return f"nbd:unix:{self.run}/nbd:exportname={name}"

    def blockdev(
        self,
        volid: str,
        options: Mapping[str, object] | None = None,
        machine: str | None = "10.0+pve0",
    ) -> dict[str, Any]:
        """What PVE puts into -blockdev, after its own check."""
        answer: dict[str, Any] = self.call(
            "qemu_blockdev_options", volid, machine, {"hints": {}, **(options or {})}
        )
        return answer

    def write(self, volid: str, byte: str, *, keep: bool = False) -> None:
        """Fill the first 4 KiB; *keep* leaves the volume active."""
        self.call("activate_volumes", [volid])
        qemu_io(self.path(volid), f"write -P {ord(byte)} 0 4k", "flush")
        if not keep:
            self.call("deactivate_volumes", [volid])

    def read(self, volid: str, snapname: str | None = None) -> str:
        """The first byte."""
        self.call("activate_volumes", [volid], snapname)
        shown = qemu_io(self.path(volid, snapname), "read -v 0 1")
        if snapname:
            self.call("deactivate_volumes", [volid], snapname)
        return chr(int(shown.split()[1], 16))

    def export(self, volid: str, snapshot: str | None = None) -> bytes:
        """All of a raw+size stream."""
        file = self.node.base / "stream"
        code = f"""
            {CFG}
            open(my $fh, '>', $ARGS[0]) or die "open: $!";
            PVE::Storage::volume_export($cfg, $fh, $ARGS[1], 'raw+size', $ARGS[2], undef, 0);
        """
        self.perl(code, file, volid, snapshot).ok()
        return file.read_bytes()

    def import_(self, volname: str, data: bytes, *, rename: bool = False) -> PerlResult:
        file = self.node.base / "stream-in"
        file.write_bytes(data)
        code = f"""
            {CFG}
            open(my $fh, '<', $ARGS[0]) or die "open: $!";
            PVE::Storage::volume_import(
                $cfg, $fh, $ARGS[1], 'raw+size', undef, undef, 0, $ARGS[2]);
        """
        return self.perl(code, file, self.volid(volname), rename)

    @contextlib.contextmanager
    def importing(self, volname: str) -> Iterator[int]:
        """An import in a process of its own, and the descriptor that feeds it."""
        fifo = self.node.base / "fifo"
        os.mkfifo(fifo)
        code = f"""
            {CFG}
            open(my $fh, '<', $ARGS[0]) or die "open: $!";
            PVE::Storage::volume_import($cfg, $fh, $ARGS[1], 'raw+size', undef, undef, 0, 0);
        """
        with self.node.session() as perl, ThreadPoolExecutor(1) as pool:
            done = pool.submit(perl.run, code, fifo, self.volid(volname))
            writing = os.open(fifo, os.O_WRONLY)
            try:
                yield writing
            finally:
                os.close(writing)
            assert done.result(20).error is not None

    def qmp(self) -> Qmp:
        """The storage daemon of a pynbd storage."""
        return Qmp(self.run / "qmp")


@contextlib.contextmanager
def nbd_store(node: Node) -> Iterator[Store]:
    """A pynbd storage with a name nobody else has; its daemon ends with it."""
    folder = node.base / "folder"
    folder.mkdir()
    store = Store(node, "pynbd", f"nbd{uuid.uuid4().hex[:12]}", folder)
    node.add(store.id, "pynbd", pynbd_folder=folder, content="images,rootdir")
    try:
        yield store
    finally:
        for pidfile in store.run.glob("*pid"):
            if pid := detached.pid_of(pidfile):
                os.kill(pid, 9)
        for mapped in store.run.glob("map/*"):
            subprocess.run(["umount", "--lazy", mapped], capture_output=True, check=False)
        shutil.rmtree(store.run, ignore_errors=True)


def daemon_pid(store: Store) -> int | None:
    """The storage daemon of a pynbd storage."""
    return detached.pid_of(store.run / "pid")


class Qemu:
    """A guest's QEMU that never runs a guest: its devices are used through the monitor."""

    def __init__(self, base: Path):
        self._socket = base / "qmp"
        self._output = base / "qemu.out"
        command = [
            *("stdbuf", "-oL", "qemu-system-x86_64", "-machine", "q35,accel=kvm:tcg", "-m", "64"),
            *("-cpu", "max"),  # what the host has: the default model warns on some
            *("-S", "-nodefaults", "-display", "none", "-device", "pcie-root-port,id=hotplug0"),
            *("-qmp", f"unix:{self._socket},server=on,wait=off"),
            *("-object", "throttle-group,id=group"),
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output)
        until(self._answers, 20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "QEMU ended"
        try:
            self.command("query-status")
        except NotListening:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)

    @property
    def pid(self) -> int:
        return self._process.pid

    def command(self, name: str, arguments: Mapping[str, object] | None = None) -> Any:
        with Qmp(self._socket, timeout=60) as qmp:
            return qmp.command(name, arguments)

    def attach(self, protocol: Mapping[str, object], format_: str) -> None:
        """The tree that qemu-server builds, and a virtio disk on it."""
        self.command("blockdev-add", drive(protocol, format_))
        device = {"driver": "virtio-blk-pci", "id": "virtio0", "drive": TOP, "bus": "hotplug0"}
        self.command("device_add", device)

    def io(self, *commands: str) -> None:
        """I/O as the guest's, by the device itself.  Its outcome is printed on QEMU's stdout."""
        for command in commands:
            line = f'qemu-io -d virtio0/virtio-backend "{command}"'
            answer = self.command("human-monitor-command", {"command-line": line})
            assert answer == "", answer
            shown = self._output.read_text()
            assert "failed" not in shown, shown
            assert "rror" not in shown, shown
        assert shown.count(" ops; ") >= sum(c.startswith(("read", "write")) for c in commands)

    def resize(self, size: int) -> None:
        """What PVE sends after volume_resize."""
        self.command("block_resize", {"node-name": TOP, "size": size})

    def size(self) -> int:
        nodes = self.command("query-named-block-nodes", {"flat": True})
        size: int = next(n["image"]["virtual-size"] for n in nodes if n["node-name"] == TOP)
        return size

    def quit(self) -> None:
        """Shut down in order, all data written."""
        self.command("quit")
        assert self._process.wait(20) == 0


TOP = "drive-virtio0"


def drive(protocol: Mapping[str, object], format_: str) -> dict[str, object]:
    """Throttle filter, format and protocol layer, as generate_drive_blockdev nests them."""
    cache = {"direct": True, "no-flush": False}
    aio = {"aio": "threads"} if protocol["driver"] in ("file", "host_device") else {}
    file = {**protocol, **aio, "cache": cache, "discard": "ignore", "node-name": "e-virtio0"}
    image = {"driver": format_, "file": file, "cache": cache, "node-name": "f-virtio0"}
    return {"driver": "throttle", "throttle-group": "group", "file": image, "node-name": TOP}
