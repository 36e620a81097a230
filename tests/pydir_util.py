# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Directory storages as PVE uses them: every call goes through PVE::Storage, shim and server."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bridge_util import PLUGINS, Node
from pve_pybridge.testing.perl import PerlResult

EXTRA: Final = Path(__file__).parent / "plugins" / "extra.py"
MIB: Final = 1 << 20
ALL: Final = "images,rootdir,vztmpl,iso,backup,snippets,import"
CALL: Final = """
    my ($function, @given) = @ARGS;
    no strict 'refs';
    return &{"PVE::Storage::$function"}(PVE::Storage::config(), @given);
"""


class PyDir:
    """A node with the bundled plugin served, and any number of storages on it."""

    def __init__(self, node: Node):
        self.node = node
        self.server = node.serve(PLUGINS / "pydir.py")
        self._count = 0

    def store(self, root: Path, type_: str = "pydir", **options: object) -> Store:
        """A further storage."""
        self._count += 1
        storeid = f"s{self._count}"
        options.setdefault("content", ALL)
        lines = [
            f"\t{_property(key)} {value}\n" for key, value in {"path": root, **options}.items()
        ]
        self.node.storage_cfg(f"{self.node.storage_cfg()}\n{type_}: {storeid}\n{''.join(lines)}")
        self.refresh()
        return Store(self.node, storeid, root)

    def refresh(self) -> None:
        """What PVE's daemons do before each request: notice changed files of /etc/pve."""
        self.node.perl("PVE::Cluster::cfs_update()").ok()

    def can(self, function: str) -> bool:
        """Whether this release's PVE::Storage has it."""
        return bool(self.node.perl("PVE::Storage->can($ARGS[0]) ? 1 : 0", function).ok())

    @property
    def apiver(self) -> int:
        return int(self.node.perl("PVE::Storage::APIVER()").ok())


def _property(key: str) -> str:
    return key if key == "is_mountpoint" else key.replace("_", "-")


class Store:
    """One storage, from PVE's side and from that of its files."""

    def __init__(self, node: Node, storeid: str, root: Path):
        self.node = node
        self.id = storeid
        self.root = root

    def run(self, function: str, *args: object, **options: Any) -> PerlResult:
        """Call ``PVE::Storage::<function>`` with the configuration and *args*."""
        return self.node.perl(CALL, function, *args, **options)

    def __call__(self, function: str, *args: object, **options: Any) -> Any:
        return self.run(function, *args, **options).ok()

    def error(self, function: str, *args: object, **options: Any) -> str:
        """What the call dies with."""
        result = self.run(function, *args, **options)
        assert result.error is not None, f"{function}{args} lived: {result.value!r}"
        assert result.error.endswith("\n")
        assert " at /" not in result.error
        return result.error.removesuffix("\n")

    def alloc(
        self, vmid: int = 100, format: str = "raw", kib: float = 1024, name: str | None = None
    ) -> str:
        """A new volume's ID."""
        return str(self("vdisk_alloc", self.id, vmid, format, name, kib))

    def volid(self, volname: str) -> str:
        return f"{self.id}:{volname}"

    def file(self, volid: str) -> Path:
        """Where an image must be."""
        return self.root / "images" / "/".join(volid.split(":")[1].split("/")[-2:])

    def parse(self, volid: str) -> list[Any]:
        """All seven values of parse_volname, numbers as numbers."""
        found: list[Any] = self("parse_volname", volid, context="list")
        assert len(found) == 7
        return [int(v) if str(v).isdecimal() and i in (2, 4) else v for i, v in enumerate(found)]

    def size(self, volid: str) -> int:
        return int(self("volume_size_info", volid, 5))

    def entries(self, vmid: int | None = None, vollist: Iterable[str] | None = None) -> list[Any]:
        """Entries of vdisk_list."""
        wanted = None if vollist is None else list(vollist)
        found: list[Any] = self("vdisk_list", self.id, vmid, wanted)[self.id]
        return found

    def volids(self, vmid: int | None = None, vollist: Iterable[str] | None = None) -> list[str]:
        return sorted(entry["volid"] for entry in self.entries(vmid, vollist))

    def images(self) -> list[str]:
        """Every file and directory below images, relative."""
        images = self.root / "images"
        return sorted(str(path.relative_to(images)) for path in images.rglob("*"))

    def write(self, volid: str, pattern: int, offset: str = "0") -> None:
        """1 MiB of *pattern*, as a guest would write it."""
        qemu_io(self.file(volid), f"write -P {pattern} {offset} 1M")

    def reads(self, volid: str, pattern: int, offset: str = "0") -> bool:
        """Whether a guest would read *pattern* there."""
        return qemu_io(self.file(volid), f"read -P {pattern} {offset} 1M", check=False)


def qemu_io(path: Path, command: str, *options: str, check: bool = True) -> bool:
    """Run one qemu-io command on an image whose suffix says its format."""
    image = ["qemu-io", *options, "-f", path.suffix[1:], "-c", command, str(path)]
    done = subprocess.run(image, capture_output=True, text=True, check=False)
    good = done.returncode == 0 and "failed" not in done.stdout
    assert good or not check, done.stdout + done.stderr
    return good


def info(path: Path) -> dict[str, Any]:
    """What qemu-img says of an image."""
    command = ["qemu-img", "info", "-U", "--output=json", "-f", path.suffix[1:], str(path)]
    answer: dict[str, Any] = json.loads(subprocess.check_output(command))
    return answer


def content_hash(path: Path, tmp: Path) -> str:
    """Hash of what a guest would see."""
    plain = tmp / f"{path.name}.plain"
    command = ["qemu-img", "convert", "-f", path.suffix[1:], "-O", "raw", str(path), str(plain)]
    subprocess.run(command, check=True)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    plain.unlink()
    return digest


def make_mutable(directory: Path) -> None:
    """Base images are immutable, even for whoever tidies up."""
    command = ["chattr", "-R", "-i", str(directory)]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
