# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A test's own PVE node: directories, plugin servers and Perl processes that see only those."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pve_pybridge.testing.perl import PerlResult, PerlSession, is_genuine, perl_options

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ROOT / "python_plugins"
GENUINE = is_genuine()
BRIDGE = [sys.executable, "-W", "error", "-m", "pve_pybridge"]


class Node:
    """Directories of one private node and the processes started on it."""

    def __init__(self, base: Path):
        self.base = base
        self.etc = base / "etc-pve"
        self.manifests = base / "plugins.d"
        self.run = base / "run"
        for directory in (self.etc, self.manifests, base / "lock"):
            directory.mkdir(exist_ok=True)
        self.env = {
            "PVE_PYBRIDGE_ETC_PVE": str(self.etc),
            "PVE_PYBRIDGE_MANIFESTS": str(self.manifests),
            "PVE_PYBRIDGE_RUN": str(self.run),
            "PVE_PYBRIDGE_BACKUPS": str(base / "backups"),
            "PVE_PYBRIDGE_STATE": str(base / "state"),
            "PVE_PYBRIDGE_SYSTEMD": str(base / "systemd"),
            "PVE_PYBRIDGE_PERL_DIR": os.environ.get("PVE_PYBRIDGE_PERL_DIR", str(ROOT / "perl")),
            "PVE_PYBRIDGE_PERL_OPTIONS": " ".join(perl_options()),
            "PVE_STANDIN_LOCK_DIR": str(base / "lock"),
        }
        self.servers: list[Server] = []
        self._stack = ExitStack()
        self._perl: dict[tuple[object, ...], PerlSession] = {}
        self.storage_cfg("dir: local\n\tpath /var/lib/vz\n\tcontent images\n\tdisable\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()
        for server in self.servers:
            server.stop()

    def on_exit(self, callback: Callable[[], object]) -> None:
        """Have something run when the node is left."""
        self._stack.callback(callback)

    # --- configuration -------------------------------------------------------------------------

    def storage_cfg(self, text: str | None = None) -> str:
        """Write (or just read) storage.cfg."""
        file = self.etc / "storage.cfg"
        if text is not None:
            file.write_text(text, "utf-8", "surrogateescape")
        return file.read_text("utf-8", "surrogateescape")

    def add(self, storeid: str, type_: str, **properties: object) -> None:
        """Append a section, as an administrator's editor would."""
        lines = [f"\t{key.replace('_', '-')} {value}" for key, value in properties.items()]
        self.storage_cfg(self.storage_cfg() + "\n".join(["", f"{type_}: {storeid}", *lines, ""]))

    def plugin(self, name: str, source: str) -> Path:
        """Write a plugin's Python file."""
        file = self.base / f"{name}.py"
        file.write_text(textwrap.dedent(source))
        return file

    def enable(self, plugin: Path | str) -> dict[str, Any]:
        """Generate and install a plugin's manifest, with the real command."""
        done = self.cli("manifest", str(plugin))
        manifest: dict[str, Any] = json.loads(done.stdout)
        file = self.manifests / f"{manifest['type']}.json"
        file.write_text(done.stdout)
        return manifest

    # --- processes -----------------------------------------------------------------------------

    def cli(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``pve-pybridge``."""
        done = subprocess.run(
            [*BRIDGE, *args],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def serve(self, plugin: Path | str, *options: str) -> Server:
        """Enable a plugin and start its server."""
        manifest = self.enable(plugin)
        server = Server(self, str(plugin), manifest["type"], options)
        self.servers.append(server)
        return server

    def perl(self, code: str, *args: object, **options: Any) -> PerlResult:
        """Run a few lines of Perl in a PVE process of this node (started at first use, kept)."""
        env = options.pop("env", {})
        taint = options.pop("taint", True)
        key = (taint, tuple(sorted(env.items())))
        if key not in self._perl:
            self._perl[key] = self._stack.enter_context(self.session(env=env, taint=taint))
        return self._perl[key].run(textwrap.dedent(code), *args, **options)

    def session(self, env: Mapping[str, str] | None = None, **options: Any) -> PerlSession:
        """A PVE process of its own."""
        return PerlSession(env={**self.env, **(env or {})}, **options)


class Server:
    """A running ``pve-pybridge serve``."""

    def __init__(self, node: Node, plugin: str, type_: str, options: tuple[str, ...] = ()):
        self.socket = node.run / f"{type_}.sock"
        self.log = node.base / f"{type_}.log"
        self.trace = node.base / f"{type_}.trace"
        with self.log.open("ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(
                [*BRIDGE, "serve", plugin, "--trace", str(self.trace), *options],
                env={**os.environ, **node.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while b"listening on" not in self.log.read_bytes()[start:]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "server did not come up"
            time.sleep(0.01)

    def calls(self, method: str | None = None) -> list[dict[str, Any]]:
        """What the server was called with so far, from its trace."""
        if not self.trace.exists():
            return []
        entries = [json.loads(line) for line in self.trace.read_text().splitlines()]
        calls = [entry for entry in entries if "method" in entry]  # not the header
        return [entry for entry in calls if method in (None, entry["method"])]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """End the server; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
