# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Snapshots of ``pydir`` volumes, inside qcow2 and as a chain (contract 9, G)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pydir_util import MIB, PyDir, Store, qemu_io

KINDS = ["inside", "chain"]


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, pydir: PyDir, tmp_path: Path) -> Store:
    """A storage with snapshots inside the file, and one with a chain of files."""
    options: dict[str, Any] = {"snapshot_as_volume_chain": 1} if request.param == "chain" else {}
    if options and not pydir.can("volume_qemu_snapshot_method"):
        pytest.skip("no volume chains before APIVER 12")
    return pydir.store(tmp_path / "store", **options)


@pytest.fixture
def chain(pydir: PyDir, tmp_path: Path) -> Store:
    if not pydir.can("volume_qemu_snapshot_method"):
        pytest.skip("no volume chains before APIVER 12")
    return pydir.store(tmp_path / "chain", snapshot_as_volume_chain=1)


def names(store: Store, volid: str) -> list[str]:
    return sorted(name for name in store("volume_snapshot_info", volid) if name != "current")


@pytest.mark.contract("C-084", "C-087")
@pytest.mark.method("volume_snapshot", "volume_snapshot_rollback")
def test_a_snapshot_is_a_point_in_time(either: Store) -> None:
    volid = either.alloc(100, "qcow2", 4096)
    either.write(volid, 1)
    began = time.monotonic()
    either("volume_snapshot", volid, "one")
    assert time.monotonic() - began < 10
    either.write(volid, 2)
    either("volume_snapshot", volid, "two")
    either.write(volid, 3)
    either.write(volid, 4, "2M")
    assert names(either, volid) == ["one", "two"]
    either("volume_snapshot_rollback", volid, "two")
    assert (either.reads(volid, 2), either.reads(volid, 0, "2M")) == (True, True)
    assert names(either, volid) == ["one", "two"]
    either("volume_snapshot_delete", volid, "two", 0)
    either("volume_snapshot_rollback", volid, "one")
    assert either.reads(volid, 1)
    assert names(either, volid) == ["one"]


@pytest.mark.contract("C-085")
@pytest.mark.method("volume_snapshot_delete")
def test_deleting_keeps_the_rest(either: Store) -> None:
    volid = either.alloc(100, "qcow2", 4096)
    for number, name in enumerate(["one", "two", "three"], 1):
        either.write(volid, number, f"{number - 1}M")
        either("volume_snapshot", volid, name)
    either("volume_snapshot_delete", volid, "two", 0)
    assert names(either, volid) == ["one", "three"]
    either("volume_snapshot_delete", volid, "one", 0)
    assert names(either, volid) == ["three"]
    assert all(either.reads(volid, number, f"{number - 1}M") for number in (1, 2, 3))
    for _ in range(2):  # gone already: harmless or an error, nothing else changes
        either.run("volume_snapshot_delete", volid, "one", 0)
    assert names(either, volid) == ["three"]
    assert all(either.reads(volid, number, f"{number - 1}M") for number in (1, 2, 3))


BLOCKERS = """
    my ($volid, $snap) = @ARGS;
    my $blockers = ['mine'];
    my @given = (PVE::Storage::config(), $volid, $snap);
    my $possible = eval { PVE::Storage::volume_rollback_is_possible(@given, $blockers) };
    my $with = $@;
    eval { PVE::Storage::volume_rollback_is_possible(@given) };
    return [$possible, $with, $@, $blockers];
"""


@pytest.mark.contract("C-086")
@pytest.mark.method("volume_rollback_is_possible")
def test_what_blocks_a_rollback(chain: Store) -> None:
    volid = chain.alloc(100, "qcow2")
    for name in ("one", "two", "three"):
        chain("volume_snapshot", volid, name)

    def ask(snap: str) -> list[Any]:
        answer: list[Any] = chain.node.perl(BLOCKERS, volid, snap).ok()
        return answer

    assert ask("three") == [1, "", "", ["mine"]]
    text = f"can't rollback, 'one' is not most recent snapshot on '{volid.split(':')[1]}'\n"
    assert ask("one") == [None, text, text, ["mine", "two", "three"]]
    assert "does not exist" in ask("none")[1]
    assert chain.error("volume_snapshot_rollback", volid, "one") + "\n" == text


@pytest.mark.contract("C-086")
@pytest.mark.method("volume_rollback_is_possible")
def test_nothing_blocks_inside_a_file(store: Store) -> None:
    volid = store.alloc(100, "qcow2")
    for name in ("one", "two"):
        store("volume_snapshot", volid, name)
    assert store.node.perl(BLOCKERS, volid, "one").ok() == [1, "", "", ["mine"]]


@pytest.mark.contract("C-088")
@pytest.mark.method("volume_snapshot_info")
def test_snapshot_info(store: Store) -> None:
    """Without ``id``: replication, its only reader, is for ZFS alone; PVE's dir has none either."""
    volid = store.alloc(100, "qcow2")
    assert store("volume_snapshot_info", volid) == {}
    assert store("volume_snapshot_info", store.alloc(100, "raw")) == {}
    before = int(time.time())
    store("volume_snapshot", volid, "one")
    info = store("volume_snapshot_info", volid)
    assert before <= info["one"]["timestamp"] <= time.time()


@pytest.mark.contract("C-088")
@pytest.mark.method("volume_snapshot_info")
def test_chain_info(chain: Store) -> None:
    volid = chain.alloc(100, "qcow2")
    only = chain("volume_snapshot_info", volid)
    assert list(only) == ["current"]
    chain("volume_snapshot", volid, "one")
    chain("volume_snapshot", volid, "two")
    info = chain("volume_snapshot_info", volid)
    images = f"{chain.root}/images/100"
    assert {name: entry["file"] for name, entry in info.items()} == {
        "current": f"{images}/vm-100-disk-0.qcow2",
        "two": f"{images}/snap-two-vm-100-disk-0.qcow2",
        "one": f"{images}/snap-one-vm-100-disk-0.qcow2",
    }
    relations = {name: (e["order"], e.get("parent"), e.get("child")) for name, e in info.items()}
    assert relations == {
        "current": (0, "two", None),
        "two": (1, "one", "current"),
        "one": (2, None, "two"),
    }
    assert info["one"]["volname"] == "100/snap-one-vm-100-disk-0.qcow2"
    assert {entry["virtual-size"] for entry in info.values()} == {MIB}


@pytest.mark.contract("C-089")
@pytest.mark.method("volume_snapshot_needs_fsfreeze")
def test_fsfreeze_is_known_without_a_server(pydir: PyDir, store: Store) -> None:
    before = len(pydir.server.calls())
    assert not store("volume_snapshot_needs_fsfreeze", store.volid("100/vm-100-disk-0.qcow2"))
    assert len(pydir.server.calls()) == before


@pytest.mark.contract("C-090")
@pytest.mark.parametrize(
    "name", ["vzdump", "__migration__", "a" * 40, "with-dash_and_line", "__replicate_100-0_17__"]
)
def test_any_snapshot_name(either: Store, name: str) -> None:
    volid = either.alloc(100, "qcow2")
    either.write(volid, 1)
    either("volume_snapshot", volid, name)
    either("volume_snapshot", volid, "other")
    either("volume_snapshot_delete", volid, "other", 0)
    either.write(volid, 2)
    assert names(either, volid) == [name]
    either("volume_snapshot_rollback", volid, name)
    assert either.reads(volid, 1)
    either("volume_snapshot_delete", volid, name, 0)
    assert names(either, volid) == []


@pytest.mark.method("rename_snapshot")
def test_renaming_a_snapshot_of_a_chain(pydir: PyDir, chain: Store) -> None:
    volid = chain.alloc(100, "qcow2")
    chain.write(volid, 6)
    chain("volume_snapshot", volid, "one")
    old = Path(chain("path", volid, "one"))
    chain("rename_snapshot", volid, "one", "renamed")
    new = Path(chain("path", volid, "renamed"))
    assert (old.exists(), new.exists()) == (False, True)
    assert qemu_io(new, "read -P 6 0 1M", "-r")
    assert chain.error("rename_snapshot", volid, "one", "again")


@pytest.mark.parametrize("format_", ["raw", "vmdk"])
def test_formats_without_snapshots(store: Store, format_: str) -> None:
    volid = store.alloc(100, format_)
    assert store.error("volume_snapshot", volid, "one") == "can't snapshot this image format"
    text = "can't rollback snapshot this image format"
    assert store.error("volume_snapshot_rollback", volid, "one") == text
    text = "can't delete snapshot for this image format"
    assert store.error("volume_snapshot_delete", volid, "one", 0) == text


def test_of_a_running_guest_qemu_has_done_the_work(chain: Store, store: Store) -> None:
    volid = chain.alloc(100, "qcow2")
    chain("volume_snapshot", volid, "one")
    file = Path(chain("path", volid, "one"))
    chain("volume_snapshot_delete", volid, "one", 1)
    assert not file.exists()
    inside = store.alloc(100, "qcow2")
    store("volume_snapshot", inside, "one")
    store("volume_snapshot_delete", inside, "one", 1)
    assert names(store, inside) == ["one"]
