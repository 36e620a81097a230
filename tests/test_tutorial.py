# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The tutorial, run: every command in docs/tutorial.md, in its order, from an empty directory.

A ``console`` block holds commands (``$ …``) and words their output must have (``…`` matches
anything); ``&`` runs one in the background until the end.  A ``diff`` block is an edit.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from author_util import wait
from bridge_util import ROOT, Node
from pve_pybridge.cli import COMMANDS
from pve_pybridge.testing import perl_missing

PAGE = (ROOT / "docs/tutorial.md").read_text("utf-8")
BLOCK = re.compile(r"^```(console|diff)\n(.*?)^```$", re.M | re.S)
NOT_YET = [f"pve-pybridge {name} " for name in ("check",) if name not in COMMANDS]
"""Commands of the page that this checkout doesn't have."""


@dataclass
class Step:
    """A command with what it must print, or an edit."""

    command: str = ""
    expected: list[str] = field(default_factory=list)
    edit: str = ""


def steps() -> Iterator[Step]:
    """What the page has its reader do."""
    for kind, text in BLOCK.findall(PAGE):
        if kind == "diff":
            yield Step(edit=text)
            continue
        found: list[Step] = []
        for line in text.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            else:
                found[-1].expected.append(line)
        yield from found


class Shell:
    """A terminal in an empty directory, without PVE."""

    def __init__(self, node: Node):
        self.folder = node.base / "empty"
        self.folder.mkdir()
        tools = node.base / "bin"
        tools.mkdir()
        commands = {"pve-pybridge": "-m pve_pybridge", "mypy": "-m mypy", "python": ""}
        for name, command in commands.items():
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
            script.chmod(0o755)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PVE_PYB")},
            "PVE_PYBRIDGE_RUN": str(node.run),
            "PVE_PYBRIDGE_PERL_DIR": str(ROOT / "perl"),
            "PYTHONPATH": str(ROOT / "bridge"),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "COLUMNS": "110",
        }
        self.background: list[tuple[subprocess.Popen[bytes], Path]] = []

    def play(self, step: Step) -> None:
        """Do what the page says and look at what came of it."""
        if step.edit:
            self.edit(step.edit)
        elif step.command.startswith("cd "):
            self.folder = self.folder / step.command[3:]
            assert self.folder.is_dir()
        elif step.command.endswith("&"):
            self.start(step)
        else:
            done = subprocess.run(
                ["bash", "-c", step.command],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                timeout=110,
                check=False,
            )
            text = done.stdout + done.stderr
            refused = any(line.startswith("pve-pybridge: ") for line in step.expected)
            assert (done.returncode != 0) is refused, f"$ {step.command}\n{text}"
            self.look(step, text)

    def start(self, step: Step) -> None:
        out = self.folder.parent / f"background{len(self.background)}"
        with out.open("wb") as file:
            process = subprocess.Popen(
                step.command.rstrip("& ").split(),
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.background.append((process, out))
        for line in step.expected:
            wait(lambda line=line: line in out.read_text(), out.read_text)  # type: ignore[misc]  # a lambda's default

    def look(self, step: Step, text: str) -> None:
        for line in step.expected:
            wanted = ".*".join(re.escape(part) for part in line.split("…"))
            assert re.search(wanted, text), f"$ {step.command}\nlacks: {line}\n{text}"

    def edit(self, text: str) -> None:
        """Apply an edit by its words, as a reader does."""
        lines = text.splitlines()
        file = self.folder / lines[0].removeprefix("--- ")
        body = lines[lines.index("@@") + 1 :]
        old = "".join(line[1:] + "\n" for line in body if line[:1] in (" ", ""))
        new = "".join(line[1:] + "\n" for line in body if line[:1] in (" ", "+", ""))
        source = file.read_text()
        assert source.count(old) == 1, f"the page's edit doesn't fit {file.name}:\n{old}"
        file.write_text(source.replace(old, new))

    def stop(self) -> None:
        """Close the other terminals."""
        for process, _ in reversed(self.background):
            process.terminate()
            process.wait(30)


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(perl_missing()), reason=perl_missing())
def test_the_first_hour(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mypy")
    shell = Shell(node)
    node.on_exit(shell.stop)
    assert list(shell.folder.iterdir()) == []
    started = time.monotonic()
    first_call = None
    left_out = []
    count = 0
    for step in steps():
        if any(step.command.startswith(name) for name in NOT_YET):
            left_out.append(step.command)
            continue
        shell.play(step)
        count += bool(step.command)
        if first_call is None and " call " in step.command:
            first_call = count
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\nthe first hour: {count} commands in {seconds:.1f} s", *left_out, sep="\nnot yet: "
        )
    assert first_call is not None
    assert first_call <= 3
    server = shell.background[0][1].read_text()
    promised = re.search(r"^    (mystore: PVE doesn't know yet: .*) …$", PAGE, re.M)
    assert promised is not None
    assert promised[1] in server


def test_the_page_has_what_the_test_reads() -> None:
    found = list(steps())
    assert len([step for step in found if step.command]) >= 15
    assert len([step for step in found if step.edit]) >= 2
    fences = PAGE.count("```")
    assert fences == 2 * len(BLOCK.findall(PAGE)), "a block that no test runs"
