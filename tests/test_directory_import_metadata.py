# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""OVF files and OVA archives as guests-to-be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from directory_util import MIB, Dir
from pve_pybridge import StorageError

CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"


def item(**values: object) -> str:
    inner = "".join(f"<rasd:{key}>{value}</rasd:{key}>" for key, value in values.items())
    return f"<Item>{inner}</Item>"


def disk(number: int, parent: int = 3, resource: str = "ovf:/disk/vmdisk") -> str:
    return item(
        AddressOnParent=number - 1,
        HostResource=f"{resource}{number}",
        InstanceID=number + 100,
        Parent=parent,
        ResourceType=17,
    )


def ovf(*items: str, href: str = "disk1.vmdk", name: str = "<Name>My VM (1)</Name>") -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="{CIM}CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:href="{href}" ovf:id="file1"/></References>
  <DiskSection><Info>disks</Info>
    <Disk ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^30"
      ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
  </DiskSection>
  <VirtualSystem ovf:id="the id">{name}
    <OperatingSystemSection ovf:id="96"><Info/></OperatingSystemSection>
    <VirtualHardwareSection><Info/>
      {item(InstanceID=1, ResourceType=3, VirtualQuantity=2)}
      {item(InstanceID=2, ResourceType=4, VirtualQuantity=2048)}
      {item(InstanceID=3, ResourceType=6)}
      {"".join(items)}
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"""


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    made = Dir(tmp_path / "storage")
    image = made.root / "import/disk1.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(image), "5M"], check=True)
    return made


def put(it: Dir, text: str, name: str = "a.ovf") -> str:
    (it.root / "import" / name).write_text(text)
    return f"import/{name}"


NICS = (item(InstanceID=9, ResourceType=10, ResourceSubType="VmxNet3"), item(ResourceType=10))


def test_ovf(it: Dir) -> None:
    volname = put(it, ovf(disk(1), *NICS))
    assert it("get_import_metadata", volname) == {
        "type": "vm",
        "source": volname,
        "create-args": {
            "name": "My-VM-1",
            "cores": "2",
            "memory": "2048",
            "ostype": "l26",
            "bios": "ovmf",
            "boot": "order=scsi0",
        },
        "disks": {"scsi0": {"volid": "s:import/disk1.vmdk", "size": 5 * MIB}, "efidisk0": 1},
        "net": {"net0": {"model": "vmxnet3"}, "net1": {"model": "e1000"}},
        "warnings": [{"type": "efi-state-lost", "key": "bios", "value": "ovmf"}],
    }


def test_ova(it: Dir) -> None:
    put(it, ovf(disk(1)))
    directory = it.root / "import"
    subprocess.run(["tar", "-C", directory, "-cf", directory / "x.ova", "a.ovf"], check=True)
    found = it("get_import_metadata", "import/x.ova")
    assert found["disks"]["scsi0"] == {"volid": "s:import/x.ova/disk1.vmdk", "size": 2 << 30}
    assert found["warnings"][0] == {"type": "ova-needs-extracting"}


def test_odd_entries_are_skipped(it: Dir) -> None:
    odd = (disk(1, resource="nonsense"), disk(2), disk(1, parent=77), disk(1))
    found = it("get_import_metadata", put(it, ovf(*odd, name="")))
    assert list(found["disks"]) == ["scsi0", "efidisk0"]
    assert found["create-args"]["name"] == "the-id"
    assert len(it.warnings()) == 3


@pytest.mark.parametrize("href", ["../secret", "/etc/passwd", "a/b", ".."])
def test_files_elsewhere_are_refused(it: Dir, href: str) -> None:
    with pytest.raises(StorageError, match=f"referenced path '{href}' is invalid"):
        it("get_import_metadata", put(it, ovf(disk(1), href=href)))


def test_links_out_of_the_directory_are_refused(it: Dir) -> None:
    (it.root / "import/link.vmdk").symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match="are you using a symlink"):
        it("get_import_metadata", put(it, ovf(disk(1), href="link.vmdk")))


def test_a_missing_disk_is_told(it: Dir) -> None:
    with pytest.raises(StorageError, match="file seems not to exist"):
        it("get_import_metadata", put(it, ovf(disk(1), href="gone.vmdk")))


@pytest.mark.parametrize(
    "text", ["", "no xml", '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "<Envelope>"]
)
def test_what_is_no_ovf(it: Dir, text: str) -> None:
    with pytest.raises(StorageError, match="OVF"):
        it("get_import_metadata", put(it, text))


def test_other_volumes_have_no_metadata(it: Dir) -> None:
    with pytest.raises(StorageError, match="invalid format"):
        it("get_import_metadata", "import/disk1.vmdk")
    with pytest.raises(StorageError, match="invalid content type 'iso'"):
        it("get_import_metadata", "iso/a.iso")
