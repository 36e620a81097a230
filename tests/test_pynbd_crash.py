# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pynbd`` when processes die: the storage daemon, the plugin server, both at a bad moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from bridge_util import Node
from pve_pybridge.qemu import daemon
from qemu_util import MIB, NBD, Store, daemon_pid, nbd_store, qemu_io, run, until

pytestmark = NBD


@pytest.fixture
def store(node: Node) -> Iterator[Store]:
    with nbd_store(node) as it:
        yield it


def kill_daemon(store: Store) -> None:
    pid = daemon_pid(store)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon_pid(store) is None)


@pytest.mark.parametrize("by", ["activate_storage", "activate_volumes"])
def test_a_dead_daemon_comes_back(store: Store, by: str) -> None:
    volids = [store.alloc(8192) for _ in range(3)]
    store.call("activate_volumes", volids)
    store.write(volids[0], "a", keep=True)
    store.call("map_volume", volids[1])
    store.call("deactivate_volumes", [volids[2]])
    kill_daemon(store)
    store.call(by, store.id if by == "activate_storage" else [volids[0]])
    assert daemon_pid(store) is not None
    assert store.read(volids[0]) == "a"
    mapped = store.run / "map" / "vm-100-disk-1"
    assert len(mapped.read_bytes()) == 8 * MIB
    assert "vm-100-disk-2" not in run("qemu-nbd", "--list", "--socket", f"{store.run}/nbd")
    kill_daemon(store)
    store.call("deactivate_volumes", volids)
    assert daemon_pid(store) is None
    assert list((store.run / "wanted").iterdir()) == []
    assert list((store.run / "map").iterdir()) == []


def test_the_daemon_is_not_the_servers_child(store: Store) -> None:
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    pid = daemon_pid(store)
    assert pid is not None
    assert os.getsid(pid) != os.getsid(store.server.process.pid)
    store.server.stop(signal.SIGKILL)
    assert daemon_pid(store) == pid
    qemu_io(store.path_of("vm-100-disk-0"), "write -P 1 0 4k")
    store.restart()
    store.call("activate_volumes", [volid])
    assert daemon_pid(store) == pid
    store.call("deactivate_volumes", [volid])
    assert daemon_pid(store) is None


def test_a_half_written_note_goes(store: Store) -> None:
    """What a server leaves that is killed while it notes an export, whoever comes next."""
    volid = store.alloc(8192)
    store.call("activate_volumes", [volid])
    half = store.run / "wanted" / ".new-1-1-1"
    half.touch()
    store.call("activate_storage", store.id)
    assert [file.name for file in half.parent.iterdir()] == ["vm-100-disk-0"]


def test_a_lost_export_comes_back(store: Store) -> None:
    """What a server leaves that is killed while it resizes: a note and a daemon, no export."""
    volids = [store.alloc(8192) for _ in range(2)]
    store.call("activate_volumes", volids)
    with store.qmp() as qmp:
        for one in qmp.command("query-block-exports"):
            if one["node-name"] == daemon.node_name("vm-100-disk-0"):
                qmp.command("block-export-del", {"id": one["id"]})
    store.call("activate_storage", store.id)
    store.write(volids[0], "a", keep=True)


def test_a_node_without_export_is_not_trusted(store: Store) -> None:
    """It may belong to a volume that was freed, and whose name has a new one."""
    volids = [store.alloc(8192) for _ in range(2)]
    store.call("activate_volumes", volids)
    store.write(volids[0], "a", keep=True)
    with store.qmp() as qmp:
        for one in qmp.command("query-block-exports"):
            if one["node-name"] == daemon.node_name("vm-100-disk-0"):
                qmp.command("block-export-del", {"id": one["id"]})
    (store.run / "wanted" / "vm-100-disk-0").unlink()
    store.call("vdisk_free", volids[0])
    assert store.alloc(8192) == volids[0]
    assert store.read(volids[0]) == "\0"


@pytest.mark.contract("C-060")
def test_a_killed_import_leaves_nothing(store: Store) -> None:
    with store.importing("vm-100-disk-0") as stream:
        os.write(stream, (8 * MIB).to_bytes(8, "little") + b"x" * 4096)
        until(lambda: list(store.run.glob("map/.*")))
        store.server.stop(signal.SIGKILL)
    assert (store.folder / "vm-100-disk-0.qcow2").exists()
    store.restart()
    store.call("activate_storage", store.id)
    assert os.listdir(store.folder) == []
    store.call("activate_storage", store.id)
    assert daemon_pid(store) is None
    assert list((store.run / "map").iterdir()) == []
