# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge check`` as authors and CI meet it: reports, errors, hangs, pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bridge_util import BRIDGE, PLUGINS, ROOT
from pve_pybridge.testing.conformance import catalogue
from pve_pybridge.testing.conformance.literal import perl
from pve_pybridge.testing.conformance.statements import STATEMENTS

PYDIR = str(PLUGINS / "pydir.py")
QUICK = ("C-002", "C-018", "C-036", "C-072")


def check(*args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [*BRIDGE, "check", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done


def wrong(tmp_path: Path, body: str) -> str:
    """A plugin on top of the correct ``vault``."""
    file = tmp_path / "mine.py"
    lines = [
        "import os, sys, time",
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})",
        "from plugins.wrong import vault",
        "class Mine(vault.Vault):",
        "    type = 'mine'",
        *(f"    {line}" for line in body.splitlines()),
    ]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_every_statement_has_its_place() -> None:
    tried = [*catalogue.CHECKS, *catalogue.LAST]
    assert sorted([*tried, *catalogue.ELSEWHERE]) == sorted(STATEMENTS)
    assert len(STATEMENTS) == 104


def test_terminal_and_reports(tmp_path: Path) -> None:
    """All forms tell the same; what isn't about the plugin appears in the files only."""
    files = {name: tmp_path / f"report.{name}" for name in ("json", "junit", "html")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    done = check(PYDIR, "--only", *QUICK, *options)
    assert "passed    C-018  status in list context" in done.stdout
    assert "the plugin has no check_connection" in done.stdout
    assert "C-002" not in done.stdout
    assert (
        "all 2 statements that concern this plugin hold: 2 passed, 1 not applicable" in done.stdout
    )

    report = json.loads(files["json"].read_text())
    assert report["ok"] is True
    outcomes = {row["number"]: row["outcome"] for row in report["results"]}
    assert outcomes == {
        "C-002": "not about the plugin",
        "C-018": "passed",
        "C-036": "not applicable",
        "C-072": "passed",
    }
    assert any("activate_volumes($cfg" in c["text"] for c in report["results"][3]["calls"])

    suite = ElementTree.parse(files["junit"]).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "0", "2")

    page = files["html"].read_text()
    HTMLParser().feed(page)
    assert "All 2 statements that concern this plugin hold" in page
    assert all(f">{number}<" in page for number in QUICK)
    assert "src=" not in page, "the page needs nothing else"


def test_a_failure_shows_call_and_answer(tmp_path: Path) -> None:
    body = 'def volume_resize(self, storage, **given):\n    raise vault.StorageError("<no> way")'
    page = tmp_path / "report.html"
    done = check(
        wrong(tmp_path, body), "--only", "C-066", "--quiet", "--html", str(page), "--json", "-",
        status=1,
    )  # fmt: skip
    assert "PVE::Storage::volume_resize($cfg, 'check:vm-9006500-disk-0', 8388608, 0)" in done.stderr
    assert "→ died: <no> way" in done.stderr
    (row,) = json.loads(done.stdout)["results"]
    assert (row["outcome"], row["telling"]["died"]) == ("failed", True)
    assert "&lt;no&gt; way" in page.read_text()


def test_what_fails_before_is_no_failure_of_the_rest(tmp_path: Path) -> None:
    """One broken method is told once; what needs it could not be tried."""
    body = 'def create(self, storage, name, size):\n    raise vault.StorageError("no room")'
    done = check(wrong(tmp_path, body), "--only", "C-055", "C-072", "--json", "-", status=1)
    outcomes = [row["outcome"] for row in json.loads(done.stdout)["results"]]
    assert outcomes == ["failed", "not tried"]


def test_a_hanging_plugin_does_not_hang_the_command(tmp_path: Path) -> None:
    """And after the second time its method isn't waited for any more."""
    body = "def create(self, storage, name, size):\n    time.sleep(3600)"
    began = time.monotonic()
    done = check(
        wrong(tmp_path, body), "--timeout", "2", "--json", "-",
        "--only", "C-018", "C-055", "C-056", "C-057", "C-058", "C-072", "C-073", "C-074",
        status=1,
    )  # fmt: skip
    assert time.monotonic() - began < 60
    results = {row["number"]: row for row in json.loads(done.stdout)["results"]}
    assert results["C-018"]["outcome"] == "passed"
    assert "no answer within 2" in results["C-055"]["reason"]
    assert "not called, vdisk_alloc hangs" in results["C-074"]["reason"]


def test_a_crashing_plugin_does_not_end_the_run(tmp_path: Path) -> None:
    body = "def grow(self, storage, name, size, device):\n    os._exit(3)"
    done = check(wrong(tmp_path, body), "--only", "C-066", "C-067", "--json", "-", status=1)
    crashed, next_ = json.loads(done.stdout)["results"]
    assert "the plugin's server ended with exit status 3" in crashed["reason"]
    assert next_["outcome"] == "passed"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("/nonexistent.py",), "/nonexistent.py: no such file"),
        ((PYDIR, "--config", "pathh=/tmp"), "storage type 'pydir' has no option 'pathh'; it has"),
        ((PYDIR, "--config", "path"), "'path': write it as key=value"),
        ((PYDIR, "--config", "path=@/nonexistent"), "can't read the file: No such file"),
        ((PYDIR, "--config", "path=relative"), "can't be added, check --config: 400"),
        ((PYDIR, "--only", "C-999"), "there is no statement C-999"),
        ((PYDIR, "--previous", "/nonexistent"), "can't read /nonexistent: No such file"),
        ((PYDIR, "--etc", "/nonexistent"), "/nonexistent is no directory"),
    ],
)
def test_bad_input_is_one_line(args: tuple[str, ...], message: str) -> None:
    done = check(*args, status=1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_required_option_is_asked_for(tmp_path: Path) -> None:
    source = """
from dataclasses import dataclass
from pve_pybridge import Status, StorageConfig, StoragePlugin, option

@dataclass(frozen=True, kw_only=True)
class Config(StorageConfig):
    server: str = option("Where it is")

class Far(StoragePlugin[Config]):
    type = "far"
    def path(self, storage, volname, snapname):
        return f"/dev/{volname}"
    def status(self, storage):
        return Status(total=10, avail=5, used=5)
    def list_images(self, storage, vmid, vollist):
        return []
"""
    file = tmp_path / "far.py"
    file.write_text(source)
    done = check(str(file), status=1)
    text = "storage type 'far' requires 'far-server': --config far-server=VALUE"
    assert done.stderr == f"pve-pybridge: {text}\n"
    done = check(str(file), "--config", "server=there", "--json", "-", "--quiet")
    report = json.loads(done.stdout)
    assert report["config"] == {"content": "images,rootdir", "far-server": "there"}
    assert report["counts"]["failed"] == 0
    reasons = {row["number"]: row["reason"] for row in report["results"]}
    assert reasons["C-055"] == "the plugin has no alloc_image"


def test_nothing_stays() -> None:
    """Neither directories nor processes, whatever happened."""
    place = tempfile.mkdtemp(prefix="n", dir="/tmp")  # a socket's path must be short
    env = {**os.environ, "TMPDIR": place}
    command = [*BRIDGE, "check", PYDIR, "--only", "C-044", "C-072", "--quiet"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    os.rmdir(place)  # nothing is in it


def test_pytest_plugin(tmp_path: Path) -> None:
    """One test per statement, beside the author's own; skips where it doesn't apply."""
    body = "def grow(self, storage, name, size, device):\n    pass"
    plugin = wrong(tmp_path, body)
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    command = [
        *(sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"),
        *("-p", "no:pve_pybridge", "-p", "pve_pybridge.testing.conformance.pytest_plugin"),
        *("--rootdir", str(tmp_path)),
        *("-k", "C-018 or C-036 or C-066 or own", "--pve-plugin", plugin, "-rs", str(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert "1 failed, 2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "the device has 4194304 bytes" in done.stdout
    assert "no backend to miss was named" in done.stdout
    assert "Traceback" not in done.stdout


def test_literals_are_perl() -> None:
    assert perl({"a": None, "b-c": [1, "it's"]}) == "{ a => undef, 'b-c' => [1, 'it\\'s'] }"
    assert perl(True) == "1"
    assert perl(b"\xff") == "pack('H*', 'ff')"
