# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge new``: what it makes works, passes its tests, and pleases type checkers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_util import ROOT, Node

KINDS = {"block": ["--block"], "directory": ["--directory"]}
PYRIGHT = ROOT / ".venv/npm/node_modules/.bin/pyright"


def tool(name: str) -> list[str]:
    """A tool's command; skips the test where it isn't installed."""
    if name == "pyright":
        found = shutil.which("pyright") or (str(PYRIGHT) if PYRIGHT.exists() else None)
        if not found or not shutil.which("node"):
            pytest.skip("no pyright (tools/setup lint installs it)")
        return [found, "--pythonpath", sys.executable]
    pytest.importorskip(name)
    return [sys.executable, "-m", name]


def run(node: Node, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **node.env, "PYTHONPATH": str(ROOT / "bridge")}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=110, check=False
    )


def new(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return run(node, node.base, sys.executable, "-m", "pve_pybridge", "new", *words)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def project(request: pytest.FixtureRequest, node: Node) -> Path:
    done = new(node, "my-store", *request.param)
    assert done.returncode == 0, done.stderr
    return node.base / "my-store"


def test_its_tests_pass(node: Node, project: Path) -> None:
    done = run(node, project, sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:xdist")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_mypy_strict(node: Node, project: Path) -> None:
    done = run(node, project, *tool("mypy"))
    assert done.stdout == "Success: no issues found in 3 source files\n", done.stdout


def test_pyright(node: Node, project: Path) -> None:
    done = run(node, project, *tool("pyright"))
    assert "0 errors, 0 warnings" in done.stdout, done.stdout


def test_what_it_says_first_works(node: Node) -> None:
    for kind in KINDS.values():
        name = f"store-{kind[0].strip('-')}"
        done = new(node, name, *kind)
        made, command = done.stdout.splitlines()
        assert made.startswith(f"made {name}/: ")
        command = command.replace("pve-pybridge", f"{sys.executable} -m pve_pybridge")
        first = run(node, node.base, "sh", "-c", command)
        assert first.returncode == 0, first.stderr
        assert "free\n" in first.stdout


def test_nothing_is_left_to_fill_in(node: Node) -> None:
    for kind in KINDS.values():
        name = f"a{kind[0].strip('-')}"
        new(node, name, *kind, "--deb")
        for file in (node.base / name).rglob("*"):
            if file.is_file():
                text = file.read_text()
                assert "%%" not in text, file
                assert "TODO" not in text, file
                assert text.endswith("\n"), file
        assert os.access(node.base / name / "debian/rules", os.X_OK)


def test_debian_directory(node: Node) -> None:
    """As dh_pve-pybridge wants it; the files it names are there."""
    new(node, "my-store", "--deb")
    debian = node.base / "my-store/debian"
    package = "pve-storage-my-store"
    assert f"Package: {package}\n" in (debian / "control").read_text()
    assert "dh-sequence-pve-pybridge" in (debian / "control").read_text()
    assert "dh $@ --with pve-pybridge" in (debian / "rules").read_text()
    (line,) = [
        line
        for line in (debian / f"{package}.pve-pybridge").read_text().splitlines()
        if not line.startswith("#")
    ]
    source, target = (debian / "install").read_text().split()
    assert line == f"/{target}/{source}"
    assert (node.base / "my-store" / source).exists()
    if shutil.which("dpkg-parsechangelog"):
        done = run(node, debian.parent, "dpkg-parsechangelog", "-S", "Source")
        assert (done.stdout, done.stderr) == (f"{package}\n", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My", "'My' can't be a storage type: lower case letters, digits and dashes can"),
        ("x", "'x' can't be a storage type: lower case letters, digits and dashes can"),
        ("nfs", "type 'nfs' is PVE's own; choose another name"),
        ("there", "there exists already; nothing was written"),
    ],
)
def test_names_that_cannot_be(node: Node, name: str, message: str) -> None:
    (node.base / "there").mkdir()
    done = new(node, name)
    assert (done.returncode, done.stderr) == (1, f"pve-pybridge: {message}\n")
    assert list((node.base / "there").iterdir()) == []


def test_without_the_perl_side_its_tests_still_pass(node: Node) -> None:
    """As after ``pip install`` alone: the one test that needs Perl says what it lacks."""
    new(node, "my-store")
    node.env["PVE_PYBRIDGE_PERL_DIR"] = str(node.base / "nowhere")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:xdist"]
    done = run(node, node.base / "my-store", *command)
    assert done.returncode == 0, done.stdout
    assert "no PVE/Storage/Custom/PyBridge.pm: install pve-pybridge, or set" in done.stdout
