# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Wrong overrides are type errors where they are written: in mypy and in pyright."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from bridge_util import ROOT
from pve_pybridge import BlockPlugin, BlockVolume, Status, StoragePlugin, Volume, VolumeSize
from test_new import tool

HEAD = """
from collections.abc import Sequence
from typing import NewType
from pve_pybridge import *

KiB = NewType("KiB", int)
Store = Storage[StorageConfig]

class Mine(BlockPlugin[StorageConfig]):
    type = "mine"
"""

WRONG = {
    "argument name": "def alloc_image(self, storage: Store, vmid: int, format: str, "
    "volname: str | None, size: Bytes) -> str: return ''",
    "argument left out": "def create(self, storage: Store, name: str) -> None: ...",
    "return type": "def status(self, storage: Store) -> tuple[int, int, int]: return 1, 2, 3",
    "list of the wrong thing": "def list_images(self, storage: Store, vmid: int | None = None, "
    "vollist: Sequence[str] | None = None) -> list[str]: return []",
    "size in another unit": "def create(self, storage: Store, name: str, size: KiB) -> None: ...",
    "size as text": "def grow(self, storage: Store, name: str, size: str, "
    "device: str | None) -> None: ...",
    "time in another unit": "def volume_size_info(self, storage: Store, volname: str, "
    "timeout: KiB | None = None) -> VolumeSize: return VolumeSize(1)",
    "fractional size in an answer": "def status(self, storage: Store) -> Status: "
    "return Status(total=1.5, avail=1, used=1)",
    "size as text in an answer": "def volumes(self, storage: Store) -> list[BlockVolume]: "
    "return [BlockVolume('vm-1-a', '1G')]",
    "type of a class attribute": 'formats = "raw"\n    allocation_unit = "4K"',
    "property that doesn't exist": "def device(self, storage: Store, name: str, "
    "snapname: str | None) -> str: return storage.config.folder",
}
RIGHT = """
    def create(self, storage: Store, name: str, size: int) -> None: ...
    def grow(self, storage: Store, name: str, size: Bytes, device: str | None) -> None: ...
    def status(self, storage: Store) -> Status:
        return Status(total=1 << 40, avail=Bytes(5), used=0)
    def volumes(self, storage: Store) -> Sequence[BlockVolume]:
        return [BlockVolume("vm-1-a", 1 << 30)]
    content = ("images",)
    formats = ("raw",)
"""


def body(name: str) -> str:
    return HEAD + "    " + WRONG[name] + "\n"


def first_line() -> int:
    return HEAD.count("\n") + 1


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each mistake, and a right one."""
    folder = tmp_path_factory.mktemp("samples")
    for number, name in enumerate(WRONG):
        (folder / f"wrong{number}.py").write_text(body(name))
    (folder / "right.py").write_text(HEAD + RIGHT)
    return folder


def check(command: list[str], folder: Path) -> str:
    env = {**os.environ, "MYPYPATH": str(ROOT / "bridge")}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=110, check=False
    )
    return done.stdout


def assert_found(found: set[tuple[str, int]]) -> None:
    """An error in each wrong file, on the line of the mistake; none anywhere else."""
    missed = [
        name
        for number, name in enumerate(WRONG)
        if not any(f == f"wrong{number}.py" and line >= first_line() for f, line in found)
    ]
    assert missed == []
    assert [f for f, _ in found if f == "right.py"] == []
    assert [(f, line) for f, line in found if line < first_line()] == []


def test_mypy_finds_each(samples: Path) -> None:
    text = check([*tool("mypy"), "--strict", "--no-error-summary", "."], samples)
    found = re.findall(r"^(\w+\.py):(\d+): error:", text, re.M)
    assert_found({(name, int(line)) for name, line in found})


def test_pyright_finds_each(samples: Path) -> None:
    text = check([*tool("pyright"), "--outputjson", "."], samples)
    report = json.loads(text)["generalDiagnostics"]
    assert_found(
        {
            (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
            for one in report
            if one["severity"] == "error"
        }
    )


def test_units_are_in_signatures_and_words() -> None:
    """What an editor shows while a method or an answer is written."""
    for cls, method in (
        (StoragePlugin, "alloc_image"),
        (StoragePlugin, "volume_resize"),
        (BlockPlugin, "create"),
        (BlockPlugin, "grow"),
    ):
        assert inspect.signature(getattr(cls, method)).parameters["size"].annotation == "Bytes"
        assert cls is BlockPlugin or "bytes" in (inspect.getdoc(getattr(cls, method)) or "")
    for answer in (Status, Volume, VolumeSize, BlockVolume):
        assert "ytes" in (inspect.getdoc(answer) or "")
        assert any("ByteCount" in str(kind) for kind in answer.__annotations__.values())
