# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A private PVE for a plugin: a real server on a real socket, and the real shim, in one directory.

For a plugin's own tests, and for the commands that try a plugin without a node (``call --plugin``,
``trace --replay --against``).  Nothing outside of the directory is read or written.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from .. import manifest, offnode, secrets
from ..client import Client
from ..coerce import plain
from ..config import options_of
from ..errors import StorageError
from ..loader import load
from ..plugin import StoragePlugin, config_class
from ..storagecfg import decoded
from .perl import PerlResult, PerlSession, perl_include_dirs

PERL_MODULES: Final = ("Data::MessagePack", "IO::FDPass", "JSON")
_ALL_HINTS: Final = ("guest-is-windows", "plugin-may-deactivate-volume")
HELLO: Final[dict[str, Any]] = {"apiver": 15, "apiage": 6, "hints": list(_ALL_HINTS)}
"""How a caller of the newest storage API introduces itself."""


class Sandbox:
    """Directories of a private PVE, and the processes started in it; use it as a context.

    *base* is made for the purpose, and removed, when none is given.
    """

    _start_seconds: ClassVar[float] = 30

    def __init__(self, base: Path | None = None):
        self._stack = ExitStack()
        if base is None:
            base = Path(tempfile.mkdtemp(prefix="pve-pybridge-"))
            self._stack.callback(shutil.rmtree, base, ignore_errors=True)
        self.base = base
        self.run = base / "run"
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = offnode.Files(base, self.run)
        self._files.make()
        self.etc = self._files.etc
        self.manifests = self._files.manifests
        self.env = dict(self._files.env)
        self.log = base / "server.log"
        """What the plugin servers print and log."""
        self._perl: PerlSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- configuration -------------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        """The storage.cfg of this PVE."""
        return self._files.storage_cfg

    def add(self, storeid: str, plugin: str | Path, **config: object) -> str:
        """Enable a plugin and add a storage of its type; returns the type.

        Options go by the names of the configuration's fields, or of their properties with
        underscores; secrets are stored where ``storage.secret`` finds them.
        """
        cls = load(str(plugin))
        given = {name: str(value) for name, value in config.items()}
        section, hidden = offnode.section_of(cls, given)
        self._files.enable(manifest.build(cls))
        self._files.add(storeid, section)
        self.store_secrets(cls, storeid, hidden)
        return cls.type

    def store_secrets(
        self, plugin: type[StoragePlugin[Any]], storeid: str, given: Mapping[str, str]
    ) -> None:
        """Put those of the properties that are secret where ``storage.secret`` finds them."""
        for item in options_of(config_class(plugin), plugin.type):
            if item.option.secret and item.property in given:
                file = secrets.path(storeid, item.property, self.etc)
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file.write_text(given[item.property], "utf-8")

    # --- processes -----------------------------------------------------------------------------

    def serve(self, plugin: str | Path, *options: str) -> subprocess.Popen[bytes]:
        """Start a server; StorageError with its own words when it doesn't come up."""
        with self.log.open("ab") as log:
            start = log.tell()
            server = subprocess.Popen(
                [*self._bridge(), "serve", str(plugin), *options],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._stack.callback(end, server)
        ends = time.monotonic() + self._start_seconds
        while b"listening on" not in (said := self.log.read_bytes()[start:]):
            if server.poll() is not None or time.monotonic() > ends:
                server.kill()
                words = said.decode(errors="replace").strip().splitlines() or ["no word from it"]
                raise StorageError(words[-1].removeprefix("pve-pybridge: "))
            time.sleep(0.01)
        return server

    def _bridge(self) -> list[str]:
        """The command ``pve-pybridge``."""
        return [sys.executable, "-m", "pve_pybridge"]

    def client(self, type_: str, timeout: float = 60.0, **hello: object) -> Client:
        """A connection to the server of a type, as a caller of the newest storage API."""
        return Client(type_, self.run / f"{type_}.sock", timeout, {**HELLO, **hello})

    def call(self, storeid: str, method: str, **args: object) -> Any:
        """One call over the socket, without Perl; StorageError as PVE would get it.

        Arguments are those of the method table, sizes in bytes; the answer is as it is on the wire.
        """
        sections = decoded(self.config_file)
        if storeid not in sections:
            raise StorageError(f"storage '{storeid}' does not exist")
        scfg = sections[storeid]
        with self.client(scfg["type"]) as client:
            return plain(client.ask(method, storeid, scfg, args)[0])

    def perl(self, code: str, *args: object, **options: Any) -> PerlResult:
        """Run a few lines of Perl with PVE::Storage loaded, under ``perl -T``: what PVE would get.

        *args* are in ``@ARGS``.  The process is started at first use and kept.
        """
        if self._perl is None:
            self._perl = self.session()
        return self._perl.run(code, *args, **options)

    def session(self, **env: str) -> PerlSession:
        """A PVE process of its own, for several at a time; it ends with the sandbox."""
        return self._stack.enter_context(PerlSession(env={**self.env, **env}))


def perl_missing() -> str:
    """What is missing to run the real shim here, in words; empty when nothing is."""
    if not shutil.which("perl"):
        return "no perl"
    shim = "PVE/Storage/Custom/PyBridge.pm"
    if not any((directory / shim).exists() for directory in perl_include_dirs()):
        return f"no {shim}: install pve-pybridge, or set PVE_PYBRIDGE_PERL_DIR to a checkout's perl"
    command = ["perl", *(f"-M{name}" for name in PERL_MODULES), "-e", "1"]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return ""
    return f"Perl lacks one of {', '.join(PERL_MODULES)}"


def end(
    server: subprocess.Popen[bytes], signum: signal.Signals = signal.SIGTERM, seconds: float = 10
) -> None:
    """End a server; one that doesn't listen is killed."""
    server.send_signal(signum)
    try:
        server.wait(seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
