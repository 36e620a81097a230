# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a guest made from an OVF file or an OVA archive would be (``get_import_metadata``).

``ovf`` reads the XML; here files are found, sizes asked for and PVE's answer is put together.
"""

from __future__ import annotations

import os
from typing import Any, Final

from ..errors import StorageError
from ..model import VolumeName
from ..storage import Storage
from . import ovf, qemu_img

_READ_SECONDS: Final = 10
_MAX_OVF_BYTES: Final = 16 << 20


def metadata(
    storage: Storage[Any], volname: str, volume: VolumeName, path: str
) -> dict[str, object]:
    """PVE's answer for import volume *volname* in file *path*."""
    if volume.vtype != "import":
        raise StorageError(f"invalid content type '{volume.vtype}'")
    if volume.format not in ("ova", "ovf"):
        raise StorageError("invalid format")
    packed = volume.format == "ova"
    guest = ovf.parse(_read(storage, path, packed), storage.warn)
    warnings: list[dict[str, str]] = [{"type": "ova-needs-extracting"}] if packed else []
    disks: dict[str, object] = {}
    for disk in guest.disks:
        size = disk.size
        file = _inside(os.path.dirname(path), disk.file)
        if not packed:
            size = _file_size(storage, disk.file, file)
        prefix = f"{volname}/" if packed else "import/"
        entry: dict[str, object] = {"volid": storage.volid(f"{prefix}{disk.file}")}
        if size is not None:
            entry["size"] = size
        disks[disk.address] = entry
    if guest.disks:
        guest.options["boot"] = "order=" + ";".join(disk.address for disk in guest.disks)
    if guest.options.get("bios") == "ovmf":
        disks["efidisk0"] = 1
        warnings.append({"type": "efi-state-lost", "key": "bios", "value": "ovmf"})
    return {
        "type": "vm",
        "source": volname,
        "create-args": guest.options,
        "disks": disks,
        "warnings": warnings,
        "net": guest.net,
    }


def _read(storage: Storage[Any], path: str, packed: bool) -> bytes:
    if packed:
        command = ["tar", "-xO", "--wildcards", "--occurrence=1", "-f", path, "*.ovf"]
        return storage.run(command, timeout=_READ_SECONDS).stdout
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_OVF_BYTES)
    except OSError as err:
        raise StorageError(f"can't open '{path}' - {err.strerror}") from None


def _inside(directory: str, name: str) -> str:
    """The real path of *name*, which must be in the directory the OVF file is in."""
    directory = os.path.realpath(directory)
    path = os.path.realpath(f"{directory}/{name}")
    if not path.startswith(f"{directory}/"):
        raise StorageError(f"error parsing {name}, are you using a symlink ?")
    return path


def _file_size(storage: Storage[Any], name: str, path: str) -> int:
    if not os.path.exists(path):
        raise StorageError(f"error parsing {name}, file seems not to exist at {path}")
    answer = storage.run([qemu_img.QEMU_IMG, "info", "-U", "--output=json", path])
    size = qemu_img.decode(answer.stdout, path)["virtual-size"]
    if not size:
        raise StorageError(f"error parsing {path}, cannot determine file size")
    return int(size)
