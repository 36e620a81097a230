# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A directory storage on a real file system, for calling ``PyDir`` directly."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pve_pybridge import DirectoryConfig, DirectoryPlugin, Storage
from pve_pybridge.storage import Call

MIB = 1 << 20
CONTENT = ("images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import")


def _load() -> type[DirectoryPlugin[DirectoryConfig]]:
    path = Path(__file__).parents[1] / "python_plugins" / "pydir.py"
    spec = importlib.util.spec_from_file_location("pydir_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[DirectoryPlugin[DirectoryConfig]] = module.PyDir
    return found


PyDir = _load()


class Dir:
    """One storage ``s`` below *root*; ``storage()`` gives what a single call would get."""

    def __init__(self, root: Path, **options: object):
        self.root = root
        self.options = options
        self.plugin = PyDir()
        self.logged: list[tuple[str, str]] = []
        self.plugin.activate_storage(self.storage())

    def storage(self, call: Call | None = None) -> Storage[DirectoryConfig]:
        scfg: dict[str, object] = {
            "path": str(self.root),
            "content": dict.fromkeys(CONTENT, 1),
            **self.options,
        }
        config = DirectoryConfig.from_scfg("s", "pydir", scfg)
        call = call or Call()
        cast(Any, call).emit = lambda level, line: self.logged.append((level, line))
        return Storage(storeid="s", type="pydir", config=config, scfg=scfg, call=call)

    def __call__(self, method: str, *args: Any, call: Call | None = None, **kwargs: Any) -> Any:
        """Run *method* the way the host does: undo when it fails."""
        storage = self.storage(call)
        try:
            return getattr(self.plugin, method)(storage, *args, **kwargs)
        except BaseException:
            storage.call.undo()
            raise

    def path(self, volname: str) -> Path:
        return Path(self.plugin.path(self.storage(), volname))

    def alloc(self, vmid: int, format: str, size: int = MIB, name: str | None = None) -> str:
        volname: str = self("alloc_image", vmid, format, name, size)
        return volname

    def files(self) -> list[str]:
        """Every file and directory below images, relative."""
        images = self.root / "images"
        return sorted(str(path.relative_to(images)) for path in images.rglob("*"))

    def warnings(self) -> list[str]:
        return [line for level, line in self.logged if level == "warn"]


def qemu_io(path: Path, *commands: str, format: str = "qcow2") -> None:
    args = [arg for command in commands for arg in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", format, *args, str(path)], capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stdout + done.stderr, done.stdout + done.stderr


def info(path: Path, format: str = "qcow2") -> dict[str, Any]:
    command = ["qemu-img", "info", "--output=json", "-f", format, str(path)]
    answer: dict[str, Any] = json.loads(subprocess.check_output(command))
    return answer


def disk_hash(path: Path, format: str, tmp: Path) -> str:
    """Hash of what a guest would see."""
    raw = tmp / "as-raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", format, "-O", "raw", str(path), str(raw)], check=True
    )
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return digest


@contextmanager
def small_filesystem(where: Path, size: str = "4m", *, read_only: bool = False) -> Iterator[Path]:
    """A real mount of a few MiB; skips where mounting isn't allowed."""
    where.mkdir(exist_ok=True)
    option = f"size={size}" + (",ro" if read_only else "")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", option, "none", str(where)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
