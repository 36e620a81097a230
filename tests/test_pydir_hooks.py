# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Adding, changing and removing storages: what the hooks see and leave (contract 9, I)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from pve_pybridge.testing.perl import PerlResult
from pydir_util import EXTRA, PyDir

CONFIG = """
    require PVE::API2::Storage::Config;
    my ($method, $param) = @ARGS;
    return PVE::API2::Storage::Config->$method($param);
"""


def configure(node: Node, method: str, **given: object) -> PerlResult:
    param: dict[str, Any] = {key.replace("_", "-"): value for key, value in given.items()}
    return node.perl(CONFIG, method, param)


def section(node: Node, storeid: str) -> dict[str, str]:
    """A storage's lines of storage.cfg."""
    match = re.search(rf"^\S+: {storeid}\n((?:\t.*\n)*)", node.storage_cfg(), re.M)
    assert match is not None, node.storage_cfg()
    return dict(line.strip().split(" ", 1) for line in match[1].splitlines())


def secrets(node: Node) -> list[Path]:
    """Every file below /etc/pve but the ones that are not about secrets."""
    known = {"storage.cfg", ".vmlist"}
    return [p for p in node.etc.rglob("*") if p.is_file() and p.name not in known]


@pytest.mark.contract("C-096")
@pytest.mark.method("on_add_hook")
def test_the_path_is_stored_tidily(pydir: PyDir, tmp_path: Path) -> None:
    given = f"{tmp_path}/./store/"
    configure(pydir.node, "create", storage="tidy", type="pydir", path=given, content="images").ok()
    assert section(pydir.node, "tidy")["path"] == f"{tmp_path}/store"
    assert (tmp_path / "store/images").is_dir()
    configure(pydir.node, "update", storage="tidy", content="iso").ok()
    assert section(pydir.node, "tidy")["content"] == "iso"
    configure(pydir.node, "delete", storage="tidy").ok()
    assert "tidy" not in pydir.node.storage_cfg()
    assert (tmp_path / "store/images").is_dir()


@pytest.mark.method("on_add_hook")
@pytest.mark.parametrize("path", ["relative", "/with space", "/quo'te", "/semi;colon"])
def test_an_illegal_path(pydir: PyDir, path: str) -> None:
    before = pydir.node.storage_cfg()
    result = configure(pydir.node, "create", storage="bad", type="pydir", path=path)
    assert result.error is not None
    assert path in result.error or "path" in (result.error_data or {}).get("errors", {})
    assert pydir.node.storage_cfg() == before


@pytest.mark.contract("C-096")
@pytest.mark.method("on_add_hook")
def test_what_a_hook_generates_is_stored(node: Node, tmp_path: Path) -> None:
    node.serve(EXTRA)
    data = tmp_path / "data"
    added = configure(
        node, "create", storage="ee", type="extra", path=str(data), extra_token="s3cret"
    ).ok()
    assert added["config"] == {"extra-uuid": "generated"}
    assert section(node, "ee")["extra-uuid"] == "generated"
    assert "content" not in (data / "seen").read_text().split()
    assert "s3cret" not in node.storage_cfg()
    assert [file.read_text().strip() for file in secrets(node)] == ["s3cret"]
    configure(node, "delete", storage="ee").ok()
    assert not (data / "seen").exists()
    assert secrets(node) == []


@pytest.mark.contract("C-096", "C-097")
@pytest.mark.method("on_add_hook", "on_delete_hook")
@pytest.mark.parametrize("fails", ["on_add_hook", "activate_storage"])
def test_a_failed_add_leaves_no_trace(node: Node, tmp_path: Path, fails: str) -> None:
    server = node.serve(EXTRA)
    before = node.storage_cfg()
    data = tmp_path / "data"
    result = configure(
        node,
        *("create",),
        storage="ee",
        type="extra",
        path=str(data),
        extra_fail=fails,
        extra_token="s3cret",
    )
    assert result.error is not None
    assert f"{fails} fails" in result.error
    assert node.storage_cfg() == before
    assert secrets(node) == []
    if fails == "activate_storage":
        assert len(server.calls("on_delete_hook")) == 1
        assert not (data / "seen").exists()


@pytest.mark.contract("C-010")
def test_only_the_path_is_required(pydir: PyDir, tmp_path: Path) -> None:
    """And always was: nothing else may become required, or storages would vanish."""
    options = pydir.node.perl("PVE::Storage::Plugin->lookup('pydir')->options()").ok()
    assert [name for name, flags in options.items() if not flags.get("optional")] == ["path"]
    pydir.node.add("only", "pydir", path=tmp_path / "store")
    pydir.refresh()
    rows = pydir.node.perl("PVE::Storage::storage_info(PVE::Storage::config())").ok()
    assert rows["only"]["active"] == 1


@pytest.mark.contract("C-011")
def test_a_section_of_an_older_plugin_keeps_working(pydir: PyDir, tmp_path: Path) -> None:
    """Only unsupported content: an empty set, not a section that is gone."""
    pydir.node.add("old", "pydir", path=tmp_path / "store", content="none")
    pydir.node.add("new", "pydir", path=tmp_path / "other", content="rootdir")
    pydir.refresh()
    result = pydir.node.perl("PVE::Storage::storage_info(PVE::Storage::config())")
    rows = result.ok()
    assert (rows["old"]["content"], rows["new"]["active"]) == ("none", 1)
    assert result.warnings == []
