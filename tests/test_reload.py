# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``serve --reload``: save, and the next call runs the new code; what can't change is said."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from author_util import Running, tray, wait
from bridge_util import Node


class Bench:
    """A plugin under --reload."""

    def __init__(self, node: Node):
        self.node = node
        self.plugin = tray(node)
        words = ["--reload", "--storage", "tr", "--config", f"folder={node.base}/store"]
        words += ["--config", "slow=0"]
        self.server = Running(node, "serve", str(self.plugin), *words, wait_for="try it")

    def edit(self, old: str, new: str, file: Path | None = None) -> None:
        """Change the plugin in its editor."""
        file = file or self.plugin
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def activate(self) -> str:
        """What the plugin says when a volume is activated."""
        return self.node.cli("call", "tr", "activate_volume", "volname=vm-1-a").stderr

    def said(self) -> list[str]:
        """What the server said, from the second line on."""
        return self.server.text.splitlines()[2:]


@pytest.fixture
def bench(node: Node) -> Bench:
    return Bench(node)


def test_next_call_runs_the_new_code(bench: Bench) -> None:
    assert bench.activate() == "activating vm-1-a for Windows: None\n"
    assert bench.said() == []
    words = ["bending  ", "cleaning ", "drawing  ", "editing  "]  # of one length, within a second
    before = "activating"
    for word in words:
        bench.edit(before, word)
        assert bench.activate() == f"{word} vm-1-a for Windows: None\n"
        before = word
    assert bench.said() == [f"tray: reloaded {bench.plugin}"] * len(words)
    bench.activate()
    assert len(bench.said()) == len(words), "only when a file has changed"


def test_syntax_error_is_one_line_and_the_old_code_goes_on(bench: Bench) -> None:
    good = bench.plugin.read_text()
    bench.plugin.write_text(good + "\ndef broken(:\n")
    number = len(bench.plugin.read_text().splitlines())
    for _ in range(2):
        assert bench.activate() == "activating vm-1-a for Windows: None\n"
    assert bench.said() == [
        f"not reloaded, the old code goes on: {bench.plugin}: syntax error in line {number}: "
        "invalid syntax"
    ]
    bench.plugin.unlink()  # as some editors do, for a moment
    assert bench.activate() == "activating vm-1-a for Windows: None\n"
    assert bench.said()[-1].endswith(f"{bench.plugin}: no such file")
    bench.plugin.write_text(good.replace("activating", "again"))
    assert bench.activate() == "again vm-1-a for Windows: None\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "tray"', 'type = "trays"', "the type is now 'trays', but this server's socket"),
        ("def status(", "def stats(", "method 'status' is missing; every storage needs it"),
        ("volname, snapname, hints):", "name, hints):", "wants an argument 'name', which PVE"),
        ("import os\n", "import oss\n", "ModuleNotFoundError: No module named 'oss' (line "),
    ],
)
def test_what_cannot_be_served_is_not(bench: Bench, old: str, new: str, message: str) -> None:
    bench.edit(old, new)
    assert bench.activate() == "activating vm-1-a for Windows: None\n"
    (line,) = bench.said()
    assert line.startswith("not reloaded, the old code goes on: ")
    assert message in line


def test_change_of_static_data_says_what_must_be_restarted(bench: Bench) -> None:
    bench.edit(
        "    token: Secret",
        '    depth: int = option("How deep", default=3)\n    token: Secret',
    )
    bench.edit('type = "tray"', 'type = "tray"\n    formats = ("raw", "qcow2")')
    bench.edit("    def get_volume_attribute(", "    def get_identity(")
    bench.edit("self, storage, volname, attribute):", "self, storage):")
    assert bench.activate() == "activating vm-1-a for Windows: None\n"
    reloaded, line = bench.said()
    assert reloaded == f"tray: reloaded {bench.plugin}"
    assert line == (
        "tray: PVE doesn't know yet: formats; methods (new get_identity; gone "
        "get_volume_attribute); options (new tray-depth); properties (new tray-depth). Write the "
        f"manifest anew (pve-pybridge manifest {bench.plugin} -o …/tray.json) and reload what has "
        "read the old one: systemctl reload-or-try-restart pvedaemon pvestatd pveproxy "
        "spiceproxy pvescheduler pve-ha-lrm pve-ha-crm"
    )
    bench.edit("How deep", "How deep it is")
    bench.activate()
    assert "PVE doesn't know yet: properties (changed tray-depth)." in bench.said()[-1]


def test_running_calls_end_with_the_code_they_began_with(bench: Bench) -> None:
    bench.edit("storage.sleep(storage.config.slow)", "storage.sleep(1)\n        storage.log('old')")
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(bench.activate()))
    thread.start()
    wait(lambda: len(bench.said()) == 1)
    wait(lambda: "activate_volume" in bench.node.cli("stats", "tray", "--json").stdout)
    bench.edit("storage.log('old')", "storage.log('new')")
    assert bench.node.cli("call", "tr", "status").returncode == 0
    thread.join(20)
    assert heard == ["activating vm-1-a for Windows: None\nold\n"]
    assert bench.activate().endswith("new\n")


def test_modules_of_the_plugin_are_followed(node: Node) -> None:
    """A plugin that is a package: each of its files counts."""
    package = node.base / "shelf"
    package.mkdir()
    (package / "__init__.py").write_text("from .plugin import Tray\n__all__ = ['Tray']\n")
    source = (
        tray(node)
        .read_text()
        .replace(
            'storage.log(f"activating', 'from .words import WORD\n        storage.log(f"{WORD}'
        )
    )
    (package / "plugin.py").write_text(source)
    (package / "words.py").write_text("WORD = 'one'\n")
    node.env["PYTHONPATH"] = str(node.base)
    (node.base / "shelf_main.py").write_text(
        "import shelf.plugin\nclass Shelf(shelf.plugin.Tray):\n    type = 'shelf'\n"
    )
    words = ["--reload", "--storage", "sh", "--config", f"folder={node.base}/store"]
    file = str(node.base / "shelf_main.py")
    server = Running(node, "serve", file, *words, wait_for="try it")
    activate = ["call", "sh", "activate_volume", "volname=vm-1-a"]
    assert node.cli(*activate).stderr.startswith("one vm-1-a")
    (package / "words.py").write_text("WORD = 'two'\n")
    assert node.cli(*activate).stderr.startswith("two vm-1-a")
    assert re.findall("reloaded", server.text) == ["reloaded"]
