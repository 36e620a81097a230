# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Reads the OVF description of a virtual machine (DMTF DSP0243) as far as PVE can use it.

Pure: XML in, a ``Guest`` out.  The XML comes from anywhere, so documents that declare entities are
refused, file names can't leave their directory, and odd entries are skipped with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..errors import StorageError

_CIM: Final = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
_NS: Final = {
    "ovf": "http://schemas.dmtf.org/ovf/envelope/1",
    "vmw": "http://www.vmware.com/schema/ovf",
    "rasd": f"{_CIM}CIM_ResourceAllocationSettingData",
}
_OVF: Final = f"{{{_NS['ovf']}}}"
_VMW: Final = f"{{{_NS['vmw']}}}"

# CIM_ResourceAllocationSettingData.ResourceType
_PROCESSOR, _MEMORY, _NIC, _DISK = "3", "4", "10", "17"
_BUSES: Final = {"5": "ide", "6": "scsi", "20": "sata"}
_NIC_MODELS: Final = ("e1000", "e1000e", "vmxnet3")

_OS_TYPES: Final = {
    "winxp": (18,),
    "solaris": (29, 81),
    "l26": (36, 79, 80, *range(82, 86), 87, *range(89, 97), *range(99, 102), *range(106, 110)),
    "l24": (97, 98),
    "w2k": (58,),
    "wxp": (67, 71, 72, 75),
    "w2k3": (69, 70),
    "wvista": (73, 74),
    "w2k8": (76, 77),
    "win7": (103, 105),
    "win8": (111, 112, 113, 114, 115, 117, 118),
    "win10": (116, 119, 120, 121),
    "win11": (122, 123),
}
_OS_BY_ID: Final = {str(number): name for name, ids in _OS_TYPES.items() for number in ids}
"""CIM_OperatingSystem.OSType → PVE's ostype."""

_HOST_RESOURCE: Final = re.compile(r"(?:ovf:)?/[\w.~-]+/([\w.~-]+)", re.ASCII)
_FILE_REFERENCE: Final = re.compile(r"[\w.~/-]+", re.ASCII)
_FILE_NAME: Final = re.compile(r"[ a-zA-Z0-9.+=_-]+")
_UNIT: Final = re.compile(r"\s*byte\s*\*\s*([0-9]+)\s*\^\s*([0-9]+)\s*")


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: bus and number (``scsi0``), file beside the OVF file, size in bytes if told."""

    address: str
    file: str
    size: int | None


@dataclass(slots=True)
class Guest:
    """*options* are those of a PVE guest configuration; values are texts, as in the document."""

    options: dict[str, str] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    net: dict[str, dict[str, str]] = field(default_factory=dict)


def parse(data: bytes, warn: Callable[[str], None]) -> Guest:
    """The guest that *data* describes; StorageError when it is no OVF document."""
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise StorageError("OVF documents with entity declarations are not supported")
    try:
        envelope = ElementTree.fromstring(data)
    except ElementTree.ParseError as err:
        raise StorageError(f"can't parse OVF: {err}") from None
    hardware = _find(envelope, "ovf:VirtualSystem/ovf:VirtualHardwareSection")
    items = [item for section in hardware for item in section.findall("ovf:Item", _NS)]
    options = _options(envelope, hardware, items, warn)
    return Guest(options, _disks(envelope, items, warn), _net(items))


def _options(
    envelope: Element,
    hardware: list[Element],
    items: list[Element],
    warn: Callable[[str], None],
) -> dict[str, str]:
    options = {}
    name = _texts(_find(envelope, "ovf:VirtualSystem/ovf:Name"))
    systems = _find(envelope, "ovf:VirtualSystem")
    if not name and systems:
        name = systems[0].get(f"{_OVF}id", "")
    if name:
        # a guest's name is a DNS name
        options["name"] = re.sub(r"[^a-zA-Z0-9.-]", "", re.sub(r"\s+", "-", name))
    else:
        warn("unable to parse the VM name in this OVF manifest, generating a default value")
    options["cores"] = _quantity(items, _PROCESSOR)
    options["memory"] = _quantity(items, _MEMORY)
    sections = _find(envelope, "ovf:VirtualSystem/ovf:OperatingSystemSection")
    os_id = "".join(section.get(f"{_OVF}id", "") for section in sections)
    options["ostype"] = _OS_BY_ID.get(os_id, "other")
    firmware = "".join(
        config.get(f"{_VMW}value", "")
        for section in hardware
        for config in section.findall("vmw:Config", _NS)
        if config.get(f"{_VMW}key") == "firmware"
    )
    if firmware == "efi":
        options["bios"] = "ovmf"
    return options


def _disks(envelope: Element, items: list[Element], warn: Callable[[str], None]) -> list[Disk]:
    """A disk is told in four places: its item, its controller's, the disk and the file section."""
    disks = []
    for item in _of_type(items, _DISK):
        resource = _value(item, "HostResource")
        match = _HOST_RESOURCE.fullmatch(resource)
        if match is None:
            warn(f"invalid host resource {resource}, skipping")
            continue
        sections = _with(envelope, "ovf:DiskSection/ovf:Disk", "diskId", match[1])
        reference = _attributes(sections, "fileRef")
        if not _FILE_REFERENCE.fullmatch(reference):
            warn(f"invalid host resource {resource}, skipping")
            continue
        parent = _value(item, "Parent")
        controllers = [other for other in items if _value(other, "InstanceID") == parent]
        controller = "".join(_value(other, "ResourceType") for other in controllers)
        if not controller:
            warn(f"invalid or missing controller: {controller}, skipping")
            continue
        references = _with(envelope, "ovf:References/ovf:File", "id", reference)
        file = _attributes(references, "href")
        if not file:
            warn(f"invalid file reference {reference}, skipping")
            continue
        if not _FILE_NAME.fullmatch(file) or file in (".", ".."):
            raise StorageError(f"referenced path '{file}' is invalid")
        address = _BUSES.get(controller, "") + _value(item, "AddressOnParent")
        disks.append(Disk(address, file, _capacity(sections)))
    return disks


def _capacity(sections: list[Element]) -> int | None:
    """The size in bytes, where the unit has the usual form ``byte * 2^30``."""
    unit = _UNIT.fullmatch(_attributes(sections, "capacityAllocationUnits"))
    capacity = _attributes(sections, "capacity")
    if unit is None or not capacity.isdecimal() or int(unit[2]) > 64:
        return None
    factor: int = int(unit[1]) ** int(unit[2])
    return int(capacity) * factor


def _net(items: list[Element]) -> dict[str, dict[str, str]]:
    models = [_value(item, "ResourceSubType").lower() for item in _of_type(items, _NIC)]
    return {
        f"net{number}": {"model": model if model in _NIC_MODELS else "e1000"}
        for number, model in enumerate(models)
    }


def _find(envelope: Element, path: str) -> list[Element]:
    return envelope.findall(path, _NS) if envelope.tag == f"{_OVF}Envelope" else []


def _with(envelope: Element, path: str, attribute: str, value: str) -> list[Element]:
    return [e for e in _find(envelope, path) if e.get(f"{_OVF}{attribute}") == value]


def _attributes(elements: list[Element], name: str) -> str:
    return "".join(element.get(f"{_OVF}{name}", "") for element in elements)


def _texts(elements: list[Element]) -> str:
    return "".join("".join(element.itertext()) for element in elements)


def _value(item: Element, name: str) -> str:
    return _texts(item.findall(f"rasd:{name}", _NS))


def _of_type(items: list[Element], resource_type: str) -> list[Element]:
    return [item for item in items if _value(item, "ResourceType") == resource_type]


def _quantity(items: list[Element], resource_type: str) -> str:
    return "".join(_value(item, "VirtualQuantity") for item in _of_type(items, resource_type))
