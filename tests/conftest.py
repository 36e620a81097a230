# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a private PVE (configuration, sockets, manifests), real servers, inline Perl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from pair_util import Pair
from probe_util import Probe
from pydir_util import PyDir, Store, make_mutable


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A PVE node of our own: nothing enabled, nothing configured; servers end with the test."""
    with Node(tmp_path) as it:
        yield it


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    """The probe plugin, served for all tests of a module: it keeps nothing between calls."""
    with Node(tmp_path_factory.mktemp("probe")) as it:
        yield Probe(it)


@pytest.fixture(scope="module")
def pydir_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PyDir]:
    """The bundled plugin, served for all tests of a module."""
    with Node(tmp_path_factory.mktemp("pydir")) as it:
        yield PyDir(it)


@pytest.fixture
def pydir(pydir_node: PyDir, tmp_path: Path) -> Iterator[PyDir]:
    """The same for one test: its storages vanish with it."""
    before = pydir_node.node.storage_cfg()
    yield pydir_node
    pydir_node.node.storage_cfg(before)
    pydir_node.refresh()
    make_mutable(tmp_path)


@pytest.fixture
def store(pydir: PyDir, tmp_path: Path) -> Store:
    """A directory storage for one test."""
    return pydir.store(tmp_path / "store")


@pytest.fixture
def pair(pydir: PyDir, tmp_path: Path) -> Pair:
    """A ``dir`` and a ``pydir`` storage."""
    return Pair(pydir, tmp_path)


@pytest.fixture(params=[0, 1], ids=["inside", "chain"])
def pair_of_either(request: pytest.FixtureRequest, pydir: PyDir, tmp_path: Path) -> Pair:
    """Both with snapshots inside qcow2, and both with snapshots as chains."""
    options: dict[str, Any] = {"snapshot_as_volume_chain": 1} if request.param else {}
    return Pair(pydir, tmp_path, **options)
