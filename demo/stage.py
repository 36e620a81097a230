# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The demo's stage: a private PVE, the plugin server, and a line for everything that happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pve_pybridge.methods import METHODS
from pve_pybridge.offnode import Files
from pve_pybridge.testing.perl import PerlResult, PerlSession, is_genuine

ROOT = Path(__file__).resolve().parent.parent
PREAMBLE = "my $cfg = PVE::Storage::config();\n"
MIB = 1 << 20
COLOURS = {
    "call": "1;36",
    "python": "35",
    "answer": "32",
    "head": "1",
    "dim": "2",
    "bad": "1;31",
    "good": "1;32",
}


class Failed(Exception):
    """A step did something else than expected."""


class Stage:
    """Starts everything, plays steps, shows what Python received, and counts."""

    def __init__(self, base: Path, plugins: list[str]):
        self.base = base
        self._plugins = plugins
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self._files = Files(base, base / "run")
        self._env = self._files.env
        self._traces = {plugin: base / f"{plugin}.trace" for plugin in plugins}
        self._seen = dict.fromkeys(plugins, 0)
        self._steps = 0
        self._calls = 0
        self._started = time.monotonic()
        self._stack = ExitStack()
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def __enter__(self) -> Self:
        self._files.make()
        self._files.storage_cfg.write_text(
            "dir: local\n\tpath /var/lib/vz\n\tcontent images\n\tdisable\n"
        )
        for plugin in self._plugins:
            manifest = str(self._files.manifests / f"{plugin}.json")
            subprocess.run(self._bridge("manifest", _source(plugin), "-o", manifest), check=True)
            self._serve(plugin)
        self._perl = self._stack.enter_context(
            PerlSession(
                env=self._env,
                preload="use POSIX; use PVE::Storage; use PVE::API2::Storage::Config;",
            )
        )
        self.apiver: int = self._perl.run("PVE::Storage::APIVER()").ok()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    def _bridge(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pve_pybridge", *args]

    def _serve(self, plugin: str) -> None:
        trace = self._traces[plugin]
        trace.touch()
        server = subprocess.Popen(
            self._bridge("serve", _source(plugin), "--trace", str(trace)),
            env={**os.environ, **self._env},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._servers[plugin] = server
        self._stack.callback(server.wait)
        self._stack.callback(server.terminate)
        assert server.stderr is not None
        line = server.stderr.readline()
        if "listening on" not in line:
            raise Failed(f"the plugin server did not start: {line}{server.stderr.read()}")

    # --- acts ----------------------------------------------------------------------------------

    def act(self, plugin: str, what: str) -> None:
        """A heading."""
        print(f"\n{self._paint('head', plugin)}: {what}\n")

    def leave_out(self, plugin: str, why: str) -> None:
        """Say what isn't shown."""
        print(f"\n{self._paint('head', plugin)}: not shown, {why}")

    def restart(self, plugin: str, title: str) -> None:
        """Kill a plugin's server and start it again."""
        self._steps += 1
        print(f"{self._steps:3}  {self._paint('call', title)}")
        started = time.monotonic()
        self._servers[plugin].kill()
        self._servers[plugin].wait()
        self._serve(plugin)
        self._show_answer("listening", time.monotonic() - started)

    # --- steps ---------------------------------------------------------------------------------

    def step(
        self, title: str, code: str, *args: object, expect: object = None, log: str | None = None
    ) -> Any:
        """One PVE call: show it, what Python received, the answer and the time.

        *expect* is the answer, *log* a part of what the task log gets.
        """
        result, seconds = self._play(title, code, *args)
        if result.error is not None:
            raise Failed(f"{title} died: {result.error}")
        self._show_answer(_short(result.value), seconds)
        if result.tainted:
            raise Failed(f"{title}: the answer is tainted")
        if expect is not None and result.value != expect:
            raise Failed(f"{title}: expected {expect!r}, got {result.value!r}")
        if log is not None and log not in result.stderr:
            raise Failed(f"{title}: expected {log!r} in the log, got {result.stderr!r}")
        return result.value

    def image(self, volid: str, expected: dict[str, object]) -> str:
        """A volume for qemu-io: as PVE gives it to QEMU, which has to have what is *expected*."""
        if self.apiver < 12:  # PVE made a path of it then
            title = "PVE::Storage::path"
            return str(self.step(title, "scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid))
        options = self.step(
            "PVE::Storage::qemu_blockdev_options",
            "PVE::Storage::qemu_blockdev_options($cfg, $ARGS[0], '10.0+pve1', { hints => {} })",
            volid,
        )
        if any(options.get(key) != value for key, value in expected.items()):
            raise Failed(f"{volid}: expected {expected}, got {options}")
        return "json:" + json.dumps({"driver": "raw", "file": options})

    def fails(self, title: str, code: str, *args: object, message: str) -> None:
        """A call that PVE must refuse, with this message."""
        result, seconds = self._play(title, code, *args)
        if result.error is None or message not in result.error:
            raise Failed(f"{title}: expected the refusal {message!r}, got {result.error!r}")
        self._show_answer("refused: " + result.error.strip(), seconds)

    def tool(self, title: str, command: list[str]) -> None:
        """Look at the data with a program of its own."""
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        bad = done.returncode != 0 or "verification failed" in done.stdout
        self.check(title, not bad, done.stdout + done.stderr, time.monotonic() - started)

    def check(self, title: str, good: bool, detail: str, seconds: float | None = None) -> None:
        """Something that must be true now."""
        self._steps += 1
        if not good:
            raise Failed(f"{title}: {detail}")
        shown = f"{self._steps:3}  {self._paint('call', title)}"
        print(shown)
        self._show_answer("yes", seconds)

    def _play(self, title: str, code: str, *args: object) -> tuple[PerlResult, float]:
        self._steps += 1
        print(f"{self._steps:3}  {self._paint('call', title)}")
        started = time.monotonic()
        result = self._perl.run(PREAMBLE + code, *args)
        seconds = time.monotonic() - started
        for call in self._new_calls():
            self._calls += 1
            head = f"       python  {call['method']}"
            order = [arg.name for arg in METHODS[call["method"]].args]
            got = sorted(call["args"].items(), key=lambda item: order.index(item[0]))
            text = ", ".join(f"{key}={_short(value)}" for key, value in got)
            print(self._wrapped(f"{head}({text})  {call['ms']:.1f} ms"))
        for line in result.stderr.splitlines():
            print(self._paint("dim", f"          log  {line}"))
        return result, seconds

    def _new_calls(self) -> list[dict[str, Any]]:
        new = []
        for plugin, trace in self._traces.items():
            lines = trace.read_text().splitlines()
            new += lines[self._seen[plugin] :]
            self._seen[plugin] = len(lines)
        return [entry for line in new if "method" in (entry := json.loads(line))]  # no header

    # --- printing ------------------------------------------------------------------------------

    def headline(self) -> str:
        """What runs here."""
        what = "genuine PVE modules" if is_genuine() else "the PVE stand-in"
        return f"Storage plugins in Python behind {what} (APIVER {self.apiver}), perl -T"

    def summary(self) -> str:
        """The good end."""
        seconds = time.monotonic() - self._started
        text = f"{self._steps} steps, {self._calls} calls received by Python, {seconds:.1f} s"
        return f"\n{self.good('all as expected')}: {text}"

    def bad(self, text: str) -> str:
        """In red."""
        return self._paint("bad", text)

    def good(self, text: str) -> str:
        """In green."""
        return self._paint("good", text)

    def _show_answer(self, text: str, seconds: float | None) -> None:
        took = f"  {seconds * 1000:.1f} ms" if seconds is not None else ""
        print(f"            {self._paint('answer', '→ ' + text)}{self._paint('dim', took)}")

    def _wrapped(self, text: str) -> str:
        width = max(shutil.get_terminal_size((110, 40)).columns, 60)
        lines = textwrap.wrap(text, width, subsequent_indent=" " * 19, break_on_hyphens=False)
        return "\n".join(self._paint("python", line) for line in lines)

    def _paint(self, what: str, text: str) -> str:
        return f"\033[{COLOURS[what]}m{text}\033[0m" if self._colour else text


def _source(plugin: str) -> str:
    return str(ROOT / f"python_plugins/{plugin}.py")


def _short(value: object) -> str:
    if value is None:
        return "ok"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{key}: {_short(item)}" for key, item in sorted(value.items())) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)
