# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A real QEMU on volumes of the bridge: what PVE passes on must open, resize, snapshot and last."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_util import Node
from pve_pybridge.qemu import detached
from qemu_util import TOP, Qemu, Store, drive, nbd_store, qemu_io, requires

MIB = 1 << 20
KINDS = ["pydir-raw", "pydir-qcow2", "pyloop", "pynbd"]
KERNEL = "linux-image-amd64"
MODULES = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
]

pytestmark = requires("qemu-system-x86_64", "qemu-io", "qemu-storage-daemon")


@pytest.fixture
def store(node: Node, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A storage of the kind the test asks for."""
    kind: str = request.param
    folder = node.base / "folder"
    if kind == "pynbd":
        with nbd_store(node) as it:
            yield it
    elif kind == "pyloop":
        if not Path("/dev/loop-control").exists():
            pytest.skip("needs loop devices")
        folder.mkdir()
        it = Store(node, "pyloop", "lo", folder)
        node.add("lo", "pyloop", pyloop_folder=folder, content="images")
        yield it
        done = subprocess.run(["losetup", "--list", "--json"], capture_output=True, check=True)
        for one in json.loads(done.stdout or b'{"loopdevices": []}')["loopdevices"]:
            if one["back-file"].startswith(str(folder)):
                subprocess.run(["losetup", "--detach", one["name"]], check=False)
    else:
        yield pydir(node, kind.removeprefix("pydir-"))


def pydir(node: Node, format_: str) -> Store:
    folder = node.base / "folder-dir"
    folder.mkdir()
    store = Store(node, "pydir", "dir1", folder, format_)
    node.add("dir1", "pydir", path=folder, content="images,iso")
    return store


def qemu_format(store: Store) -> str:
    return store.format if store.format == "qcow2" else "raw"


@contextlib.contextmanager
def started(store: Store, volid: str) -> Iterator[Qemu]:
    """A volume in a guest, as at VM start."""
    store.call("activate_volumes", [volid])
    with Qemu(store.node.base) as qemu:
        qemu.attach(store.blockdev(volid), qemu_format(store))
        yield qemu


@contextlib.contextmanager
def busy(qemu: Qemu) -> Iterator[list[float]]:
    """A guest at work: reads all the time; the list gets the seconds each took."""
    stop, took = threading.Event(), list[float]()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.wait(0.02):
                begin = time.monotonic()
                qemu.io("read -P 0x61 0 64k")
                took.append(time.monotonic() - begin)
        except BaseException as err:  # shown by the test
            errors.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join(60)
    assert not errors, errors


@pytest.mark.contract("C-066", "C-073", "C-081", "C-084")
@pytest.mark.parametrize("store", KINDS, indirect=True)
def test_a_volume_in_use(store: Store) -> None:
    """Write, resize and snapshot online, with the plugin server restarted meanwhile."""
    volid = store.alloc(16 << 10)
    with started(store, volid) as qemu:
        assert qemu.size() == 16 * MIB
        qemu.io("write -P 0x61 0 64k", "write -P 0x62 15M 1M")
        with busy(qemu) as took:
            store.server.stop(signal.SIGKILL)
            store.restart()
            count = len(took)
            resize(store, volid, qemu, 32 * MIB)
            snapshot(store, volid, qemu)
        assert count > 3, "nothing was read while there was no plugin server"
        qemu.io("write -P 0x63 31M 1M", "write -P 0x64 0 64k", "read -P 0x62 15M 1M", "flush")
        refused = store.node.perl(
            "my $cfg = PVE::Storage::config(); PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]])",
            volid,
        )
        if store.format == "raw" and not store.id.startswith("dir"):
            assert refused.error == f"volume deactivation failed: {volid}\n"
        qemu.io("read -P 0x64 0 64k")
        qemu.quit()
    if snapshots(store):
        store.call("deactivate_volumes", [volid])
        store.call("volume_snapshot_rollback", volid, "snap1")
        with started(store, volid) as qemu:
            qemu.io("read -P 0x61 0 64k", "read -P 0x62 15M 1M", "read -P 0 31M 1M")
            qemu.quit()
    store.call("deactivate_volumes", [volid])
    assert store.call("volume_size_info", volid, 5) == 32 * MIB
    store.call("vdisk_free", volid)


def resize(store: Store, volid: str, qemu: Qemu, size: int) -> None:
    """pydir leaves it to QEMU, pyloop resizes the device, pynbd has the guest connect again."""
    store.call("volume_resize", volid, size, qemu.pid)
    qemu.resize(size)
    assert qemu.size() == size


def snapshots(store: Store) -> bool:
    """raw files have none; loop devices only where the file system can copy in an instant."""
    return store.format == "qcow2" or store.id.startswith("nbd")


def snapshot(store: Store, volid: str, qemu: Qemu) -> None:
    method = store.call("volume_qemu_snapshot_method", volid)
    if not snapshots(store):
        assert method == "storage"
    elif method == "qemu":
        arguments = {"device": TOP, "name": "snap1"}
        qemu.command("blockdev-snapshot-internal-sync", arguments)
    else:
        store.call("volume_snapshot", volid, "snap1")


@pytest.mark.parametrize("store", ["pynbd"], indirect=True)
def test_a_guest_survives_its_storage_daemon(store: Store) -> None:
    """Its requests wait until pvestatd's next activate_storage; it loses and notices nothing."""
    volid = store.alloc(16 << 10)
    with started(store, volid) as qemu:
        qemu.io("write -P 0x61 0 64k", "write -P 0x62 1M 64k")  # not flushed
        with busy(qemu) as took:
            time.sleep(0.3)
            pid = detached.pid_of(store.run / "pid")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)
            store.call("activate_storage", store.id)
        assert max(took) < 20, "reconnecting took too long"
        qemu.io("read -P 0x62 1M 64k", "write -P 0x63 2M 64k", "read -P 0x61 0 64k")
        qemu.quit()
    store.call("deactivate_volumes", [volid])


# --- a guest --------------------------------------------------------------------------------------

INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in /modules/*; do /bin/busybox insmod $module; done
echo "the disk says: $(/bin/busybox head -n 1 /dev/vda)"
echo 'written by the guest' | /bin/busybox dd of=/dev/vda bs=512 seek=2048 conv=notrunc,fsync
/bin/busybox poweroff -f
"""


@pytest.mark.skipif(not shutil.which("busybox"), reason="not installed: busybox-static")
@pytest.mark.parametrize("store", ["pynbd"], indirect=True)
def test_boot(store: Store) -> None:
    """Debian's kernel and an initrd of ours, both from a storage, read and write a volume."""
    kernel, modules = debian_kernel()
    boot = pydir(store.node, "raw")
    iso = boot.folder / "template" / "iso"
    iso.mkdir(parents=True)
    shutil.copy(kernel, iso / "kernel.img")
    (iso / "initrd.img").write_bytes(initrd(modules))
    volid = store.alloc(16 << 10)
    store.call("activate_volumes", [volid, boot.volid("iso/kernel.img")])
    message = store.node.base / "message"
    message.write_bytes(b"hello from the storage\n".ljust(512, b"\0"))
    qemu_io(store.path(volid), f"write -s {message} 0 512")
    done = subprocess.run(
        [
            # not KVM: inside a virtual machine it may be there and start no kernel
            *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "256"),
            *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", boot.path(boot.volid("iso/kernel.img"))),
            *("-initrd", boot.path(boot.volid("iso/initrd.img"))),
            *("-append", "console=ttyS0 panic=-1 quiet"),
            *("-object", "throttle-group,id=group"),
            *("-blockdev", json.dumps(drive(store.blockdev(volid), "raw"))),
            *("-device", "virtio-blk-pci,drive=drive-virtio0"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "the disk says: hello from the storage" in done.stdout, done.stdout + done.stderr
    shown = qemu_io(store.path(volid), "read -v 1M 16")
    assert "written.by.the.g" in shown
    store.call("deactivate_volumes", [volid])


def debian_kernel() -> tuple[Path, list[Path]]:
    """Kernel image and modules: the installed ones, else Debian's package, fetched once."""
    for kernel in sorted(Path("/boot").glob("vmlinuz-*-amd64")):
        version = kernel.name.removeprefix("vmlinuz-")
        if modules := _modules(Path("/lib/modules") / version):
            return kernel, modules
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pve-pybridge-tests"
    if not (found := sorted(cache.glob("boot/vmlinuz-*"))):
        _fetch_kernel(cache)
        found = sorted(cache.glob("boot/vmlinuz-*"))
    version = found[-1].name.removeprefix("vmlinuz-")
    return found[-1], _modules(cache / "lib" / "modules" / version)


def _modules(folder: Path) -> list[Path]:
    """Those the guest's disk needs, in the order they are loaded."""
    return [path for name in MODULES for path in [folder / "kernel" / name] if path.exists()]


def _fetch_kernel(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    command = ["apt-cache", "depends", "--important", KERNEL]
    depends = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    names = [word for word in depends.split() if word.startswith("linux-image-") and word != KERNEL]
    package = names[0] if names else None
    if package is None:
        pytest.skip(f"apt knows no {KERNEL}")
    download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
    if subprocess.run(download, cwd=cache, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"apt can't download {package}")
    for archive in cache.glob("*.deb"):
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE)
        wanted = ["--wildcards", "./boot/vmlinuz-*", *(f"./lib/modules/*/{m}" for m in _WANTED)]
        with tar:
            subprocess.run(["tar", "-xf", "-", *wanted], stdin=tar.stdout, cwd=cache, check=True)
        archive.unlink()


_WANTED = [f"kernel/{name}" for name in MODULES]


def initrd(modules: list[Path]) -> bytes:
    """busybox, the modules and a script, as the kernel's cpio archive."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    files = {
        "bin/busybox": (Path(busybox).read_bytes(), 0o100755),
        "init": (INIT.encode(), 0o100755),
    }
    for index, module in enumerate(modules):
        files[f"modules/{index:02}-{module.name}"] = (module.read_bytes(), 0o100644)
    folders = dict.fromkeys(("bin", "dev", "modules"), (b"", 0o040755))
    entries = {**folders, **files, "TRAILER!!!": (b"", 0)}
    archive = b"".join(_cpio(name, *entry) for name, entry in entries.items())
    return gzip.compress(archive, 1)


def _cpio(name: str, data: bytes, mode: int) -> bytes:
    """One entry of the newc format: 13 numbers, the name, the data, each padded to 4 bytes."""
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
