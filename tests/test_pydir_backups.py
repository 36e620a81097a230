# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backups, attributes and guest import of ``pydir``, through PVE::Storage (contract 9, I)."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pydir_util import Store

PRUNE = """
    my ($storeid, $keep, $vmid, $type, $dryrun) = @ARGS;
    my @log;
    my $cfg = PVE::Storage::config();
    my $list = eval {
        PVE::Storage::prune_backups(
            $cfg, $storeid, $keep, $vmid, $type, $dryrun, sub { push @log, [@_] });
    };
    return [$list, $@, \\@log];
"""


def backup(store: Store, when: datetime, vmid: int = 100, kind: str = "qemu") -> str:
    """A backup file with notes and log; its volume ID."""
    store("activate_storage", store.id)
    suffix = {"qemu": "vma.zst", "lxc": "tar.zst"}[kind]
    stem = f"vzdump-{kind}-{vmid}-{when:%Y_%m_%d-%H_%M_%S}"
    for name in (f"{stem}.{suffix}", f"{stem}.log", f"{stem}.{suffix}.notes"):
        (store.root / "dump" / name).write_text("x")
    return store.volid(f"backup/{stem}.{suffix}")


def dump(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "dump").iterdir())


def marks(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["volid"]: entry["mark"] for entry in entries}


NEW = datetime(2024, 3, 10, 12, 0, 0)


@pytest.fixture
def week(store: Store) -> list[str]:
    """Seven daily backups, the newest first; the oldest is protected."""
    volids = [backup(store, NEW - timedelta(days=day)) for day in range(7)]
    store("update_volume_attribute", volids[-1], "protected", 1)
    return volids


@pytest.mark.contract("C-100")
@pytest.mark.method("prune_backups")
def test_a_dry_run_only_tells(store: Store, week: list[str]) -> None:
    (store.root / "dump/vzdump-qemu-100-renamed.vma").touch()
    before = dump(store)
    found, error, _ = store.node.perl(PRUNE, store.id, {"keep-last": 2}, None, None, 1).ok()
    assert error == ""
    assert dump(store) == before
    expected = dict.fromkeys(week, "remove")
    expected |= dict.fromkeys(week[:2], "keep")
    expected[week[-1]] = "protected"
    expected[store.volid("backup/vzdump-qemu-100-renamed.vma")] = "renamed"
    assert marks(found) == expected
    entry = next(entry for entry in found if entry["volid"] == week[0])
    assert (entry["ctime"], entry["type"]) == (int(NEW.timestamp()), "qemu")
    assert int(entry["vmid"]) == 100


@pytest.mark.contract("C-100")
@pytest.mark.method("prune_backups")
def test_pruning_removes_what_is_marked_and_says_so(store: Store, week: list[str]) -> None:
    other = backup(store, NEW, 101, "lxc")
    found, error, log = store.node.perl(PRUNE, store.id, {"keep-last": 2}, 100, "qemu", 0).ok()
    assert error == ""
    assert other not in marks(found)
    removed = [volid for volid, mark in marks(found).items() if mark == "remove"]
    assert sorted(removed) == sorted(week[2:-1])
    assert sorted(line[1] for line in log) == sorted(f"removing backup '{v}'" for v in removed)
    assert {line[0] for line in log} == {"info"}
    left = {store.volid(f"backup/{name}") for name in dump(store) if name.endswith(".zst")}
    assert left == {*week[:2], week[-1], other}
    assert len([name for name in dump(store) if name.endswith(".log")]) == 4
    assert len([name for name in dump(store) if name.endswith(".notes")]) == 4


@pytest.mark.contract("C-100")
def test_pruning_tries_all_before_it_dies(store: Store, week: list[str]) -> None:
    stuck = store.root / "dump" / week[3].split("/")[1]
    subprocess.run(["chattr", "+i", stuck], check=True)
    try:
        _, error, log = store.node.perl(PRUNE, store.id, {"keep-last": 2}, None, None, 0).ok()
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    assert error == "error pruning backups - check log\n"
    left = {store.volid(f"backup/{name}") for name in dump(store) if name.endswith(".zst")}
    assert left == {*week[:2], week[3], week[-1]}
    (failure,) = [line for line in log if line[0] == "err"]
    assert failure[1].startswith(f"error when removing backup '{week[3]}' - ")


@pytest.mark.method("prune_backups")
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"keep-all": 1}, [0, 1, 2, 3, 4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"keep-last": 1, "keep-daily": 2}, [0, 1, 2]),
        ({"keep-weekly": 2}, [0]),
        ({"keep-yearly": 1}, [0]),
        ({"keep-last": 3, "keep-monthly": 1}, [0, 1, 2]),
    ],
)
def test_what_is_kept(store: Store, week: list[str], keep: dict[str, int], kept: list[int]) -> None:
    found, error, _ = store.node.perl(PRUNE, store.id, keep, None, None, 1).ok()
    assert error == ""
    assert sorted(v for v, m in marks(found).items() if m == "keep" and v in week) >= sorted(
        week[number] for number in kept
    )
    assert "remove" not in [marks(found)[week[number]] for number in kept]
    assert marks(found)[week[-1]] == "protected"


@pytest.mark.contract("C-101")
@pytest.mark.method("get_volume_attribute", "update_volume_attribute")
def test_notes_and_protection(store: Store) -> None:
    volid = backup(store, NEW)
    file = store.root / "dump" / volid.split("/")[1]
    notes = "Größe ✓\nsecond line\n"
    store("update_volume_attribute", volid, "notes", notes)
    assert Path(f"{file}.notes").read_text() == notes
    assert store("get_volume_attribute", volid, "notes") == notes
    (entry,) = store("volume_list", store.id, None, "backup")
    assert entry["notes"] == "Größe ✓"
    for nothing in ("", None):
        store("update_volume_attribute", volid, "notes", nothing)
        assert not Path(f"{file}.notes").exists()
        assert store("get_volume_attribute", volid, "notes") == ""
    for value in (1, 1, 0, 0):
        store("update_volume_attribute", volid, "protected", value)
        assert Path(f"{file}.protected").exists() == bool(value)
        assert bool(store("get_volume_attribute", volid, "protected")) == bool(value)


@pytest.mark.contract("C-101")
@pytest.mark.method("get_volume_attribute", "update_volume_attribute")
def test_attributes_that_do_not_exist(store: Store) -> None:
    disk, archive = store.alloc(), backup(store, NEW)
    for volid, attribute in ((disk, "notes"), (disk, "protected"), (archive, "colour")):
        assert store("get_volume_attribute", volid, attribute) is None
    assert store.error("update_volume_attribute", disk, "notes", "x") == (
        "only backups can have notes"
    )
    assert store.error("update_volume_attribute", disk, "protected", 1) == (
        "only backups support attribute 'protected'"
    )
    assert store.error("update_volume_attribute", archive, "colour", "red") == (
        "attribute 'colour' is not supported for storage type 'pydir'"
    )


OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:href="disk.vmdk" ovf:id="f1"/></References>
  <DiskSection><Disk ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20"
    ovf:diskId="d1" ovf:fileRef="f1"/></DiskSection>
  <VirtualSystem ovf:id="vm">
    <Name>my guest</Name>
    <OperatingSystemSection ovf:id="101"/>
    <VirtualHardwareSection>
      <Item><rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:HostResource>ovf:/disk/d1</rasd:HostResource>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""
METADATA = """
    my ($storeid, $volname) = @ARGS;
    my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $storeid);
    PVE::Storage::Plugin->lookup('pydir')->get_import_metadata($scfg, $volname, $storeid);
"""


@pytest.mark.method("get_import_metadata")
def test_a_guest_from_an_ovf_file(store: Store) -> None:
    store("activate_storage", store.id)
    (store.root / "import/guest.ovf").write_text(OVF)
    command = ["qemu-img", "create", "-q", "-f", "vmdk", str(store.root / "import/disk.vmdk"), "1M"]
    subprocess.run(command, check=True)
    found = store.node.perl(METADATA, store.id, "import/guest.ovf").ok()
    assert (found["type"], found["source"]) == ("vm", "import/guest.ovf")
    assert found["disks"] == {"scsi0": {"volid": store.volid("import/disk.vmdk"), "size": 1 << 20}}
    assert found["create-args"] == {
        "name": "my-guest",
        "cores": "2",
        "memory": "512",
        "ostype": "l26",
        "boot": "order=scsi0",
    }
    assert (found["warnings"], found["net"]) == ([], {})
    wrong = store.node.perl(METADATA, store.id, "import/disk.vmdk")
    assert wrong.error == "invalid format\n"
