# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The conformance suite finds every deliberate mistake, and blames no correct plugin."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_util import GENUINE, PLUGINS, ROOT
from plugins.wrong import (
    MISTAKES,
    Mistake,
    activation,
    directory,
    life,
    listing,
    sizes,
    snapshots,
    storage,
    transfer,
)
from plugins.wrong.vault import Vault
from pve_pybridge.manifest import build
from pve_pybridge.testing.conformance.outcome import FAILED, NOT_APPLICABLE, PASSED, Result
from pve_pybridge.testing.conformance.report.account import Account
from pve_pybridge.testing.conformance.run import run
from pve_pybridge.testing.conformance.settings import Settings
from pve_pybridge.testing.conformance.statements import STATEMENTS
from qemu_util import requires
from rbd_util import fake_cluster

MODULES = (sizes, life, listing, storage, activation, snapshots, transfer, directory)
IDS = [mistake.plugin.__name__ for mistake in MISTAKES]


def write(folder: Path, plugin: type[Any]) -> str:
    """A plugin's file as an author would have it: one class with a type."""
    file = folder / f"{plugin.__name__.lower()}.py"
    file.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        f"import {plugin.__module__} as module\n"
        f"class Plugin(module.{plugin.__name__}):\n"
        f"    type = {plugin.type!r}\n"
    )
    return str(file)


def came_later(result: Result) -> bool:
    """Genuine modules are those of one APIVER; the stand-in's is the newest."""
    outdated = result.outcome == NOT_APPLICABLE and "came with APIVER" in result.reason
    return GENUINE and outdated


def settings_of(mistake: Mistake) -> Settings:
    """What the suite is told for it."""
    told = dict(mistake.settings)
    if previous := told.get("previous"):
        told["previous"] = build(previous)
    return Settings(**{"timeout": 15, **told})


@pytest.mark.parametrize("mistake", MISTAKES, ids=IDS)
def test_mistake_is_found(tmp_path: Path, mistake: Mistake) -> None:
    """The statement that is named for it fails, and shows a call."""
    if mistake.plugin.type == "pyloop" and os.geteuid() != 0:
        pytest.skip("loop devices need root")
    plugin = write(tmp_path, mistake.plugin)
    account = run(plugin, settings_of(mistake), only=[mistake.statement])
    (result,) = account.results
    if came_later(result):
        pytest.skip(result.reason)
    assert result.outcome == FAILED, f"{mistake.text}: {result.outcome}, {result.reason}"
    assert result.reason


def test_there_are_enough_mistakes() -> None:
    assert len(MISTAKES) >= 40
    assert len(set(IDS)) == len(IDS)
    assert all(mistake.text.endswith(".") for mistake in MISTAKES)
    assert {mistake.plugin.__module__ for mistake in MISTAKES} == {m.__name__ for m in MODULES}


@pytest.fixture
def reflinks(tmp_path: Path) -> Iterator[Path]:
    """A file system whose files can be snapshot while in use."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    image, folder = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    for name in ("one", "two"):
        (folder / name).mkdir()
    yield folder
    subprocess.run(["umount", folder], check=True)


def blames(
    plugin: str, settings: Settings, without: Collection[str] = ()
) -> tuple[Account, list[str]]:
    """All that a full run finds fault with."""
    wanted = set(STATEMENTS) - set(without)
    account = run(plugin, settings, only=wanted)
    assert account.left == []
    assert {result.number for result in account.results} == wanted
    return account, [f"{r.number} {r.outcome}: {r.reason}" for r in account.bad]


def example(tmp_path: Path, page: str, name: str) -> str:
    """A plugin that a document shows."""
    found = re.search(rf"```python\n(# {name}\.py.*?)```", (ROOT / page).read_text(), re.S)
    assert found is not None
    file = tmp_path / f"{name}.py"
    file.write_text(found[1])
    return str(file)


@pytest.mark.timeout(300)
def test_the_base_of_the_mistakes_is_blameless(tmp_path: Path) -> None:
    """And every statement that catches one of its descendants was tried on it, and holds."""
    settings = Settings(
        config={"token": "s3cret-t0ken", "shared": "1"},
        unreachable={"folder": "/nonexistent"},
        previous=build(Vault),
    )
    account, bad = blames(write(tmp_path, Vault), settings)
    assert bad == []
    passed = {r.number for r in account.results if r.outcome == PASSED or came_later(r)}
    assert {m.statement for m in MISTAKES if m.plugin.type == "vault"} - passed == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chain", ["0", "1"])
def test_pydir_is_blameless(chain: str) -> None:
    settings = Settings(
        config={"snapshot-as-volume-chain": chain, "shared": "1"},
        unreachable={"path": "/proc/nonexistent"},
    )
    assert blames(str(PLUGINS / "pydir.py"), settings)[1] == []


@pytest.mark.timeout(300)
def test_pyloop_is_blameless(reflinks: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    settings = Settings(
        config={"folder": str(reflinks / "one")},
        second={"folder": str(reflinks / "two")},
        unreachable={"folder": "/nonexistent"},
    )
    assert blames(str(PLUGINS / "pyloop.py"), settings)[1] == []


@requires("qemu-storage-daemon", "qemu-nbd", "qemu-img", "qemu-io")
@pytest.mark.timeout(300)
def test_pynbd_is_blameless() -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("needs FUSE")
    settings = Settings(unreachable={"folder": "/nonexistent"})
    assert blames(str(PLUGINS / "pynbd.py"), settings)[1] == []


@pytest.mark.timeout(900)
def test_pyrbd_is_blameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the fake cluster, whose devices are files."""
    home, etc = tmp_path / "ceph", tmp_path / "etc"
    etc.mkdir()
    fake_cluster(home, etc)
    monkeypatch.setenv("FAKE_CEPH", str(home))
    plugin = tmp_path / "fake.py"
    plugin.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests/plugins')!r})\n"
        "from pyrbd_fake import FakeRbd\n"
        "class Plugin(FakeRbd):\n"
        "    type = 'pyrbd'\n"
        "    def qemu_blockdev_options(self, *args, **kwargs):\n"
        "        found = super().qemu_blockdev_options(*args, **kwargs)\n"
        "        return {**found, 'driver': 'file'}\n"
    )
    settings = Settings(config={"krbd": "1", "pool": "rbd"}, second={"pool": "data"}, etc=etc)
    # the fake's commands are slow: twenty at once outlast PVE's wait for its lock
    assert blames(str(plugin), settings, without=["C-103"])[1] == []


@pytest.mark.timeout(300)
def test_examples_of_the_documents_are_blameless(tmp_path: Path) -> None:
    """What the README's twenty lines don't do doesn't apply to them."""
    account, bad = blames(example(tmp_path, "README.md", "tower"), Settings())
    assert bad == []
    assert account.count(NOT_APPLICABLE) > 30
    if os.geteuid() == 0 and Path("/dev/loop-control").exists():
        guide = example(tmp_path, "docs/plugin-author.md", "miniloop")
        assert blames(guide, Settings())[1] == []
