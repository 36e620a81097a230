# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A pretended PVE node in a directory of its own: a real server of the plugin, PVE's processes.

Nothing of the machine's own PVE is read or changed; only the plugin's backend is the real one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import StorageError
from ..perl import PerlResult, PerlSession, is_genuine

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 5.0
DISABLED_LOCAL: Final = "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\tdisable\n"

CREATE: Final = """
    my ($param) = @ARGS;
    require PVE::API2::Storage::Config;
    require PVE::RPCEnvironment;
    no warnings 'redefine', 'once';
    # outside of a daemon nobody has logged in
    *PVE::RPCEnvironment::get = sub { return bless {}, 'PVE::RPCEnvironment' };
    *PVE::RPCEnvironment::get_user = sub { return 'root@pam' };
    my $method = delete($param->{'-method'});
    return PVE::API2::Storage::Config->$method($param);
"""


class Sandbox:
    """Directories, the plugin's server, and Perl processes that see only those."""

    def __init__(
        self,
        base: Path,
        plugin: str,
        type_: str,
        apiver: int,
        prefix: tuple[str, ...] = (),
    ):
        self.base = base
        self.type = type_
        self.etc = base / "etc-pve"
        self.manifests = base / "plugins.d"
        self.run = base / "run"
        self.log = base / "server.log"
        self.trace = base / "trace.json"
        self._plugin = plugin
        self._prefix = prefix
        for directory in (self.etc, self.manifests, self.run, base / "lock"):
            directory.mkdir(parents=True, mode=0o700)
        self.env = {
            "PVE_PYBRIDGE_ETC_PVE": str(self.etc),
            "PVE_PYBRIDGE_MANIFESTS": str(self.manifests),
            "PVE_PYBRIDGE_RUN": str(self.run),
            "PVE_STANDIN_LOCK_DIR": str(base / "lock"),
            "PVE_STANDIN_APIVER": str(apiver),
        }
        self.storage_cfg.write_text(DISABLED_LOCAL)
        self._server: subprocess.Popen[bytes] | None = None
        self._sessions: list[PerlSession] = []
        self._session: PerlSession | None = None

    @property
    def storage_cfg(self) -> Path:
        """PVE's configuration file."""
        return self.etc / "storage.cfg"

    @property
    def manifest(self) -> Path:
        """Where the shim looks for the manifest."""
        return self.manifests / f"{self.type}.json"

    # --- the plugin's server -------------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it listens."""
        command = [sys.executable, "-m", "pve_pybridge", "--log-level", "debug"]
        with self.log.open("ab") as log:
            begin = log.tell()
            self._server = subprocess.Popen(
                [*self._prefix, *command, "serve", self._plugin, "--trace", str(self.trace)],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        ends = time.monotonic() + START_SECONDS
        while b"listening on" not in self.log.read_bytes()[begin:]:
            if self._server.poll() is not None or time.monotonic() > ends:
                self.stop(signal.SIGKILL)
                raise StorageError(f"the plugin's server doesn't start: {self.last_words()}")
            time.sleep(0.01)

    def server_ended(self, within: float = 0.0) -> int | None:
        """The exit status of a server that ended by itself; negative: killed by that signal.

        Its callers know of the end before its parent does: *within* seconds.
        """
        if self._server is None:
            return None
        try:
            return self._server.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """End the server; one that doesn't listen is killed."""
        if self._server is None:
            return
        if self._server.poll() is None:
            self._server.send_signal(signum)
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def restart(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Another process of the plugin, which remembers nothing."""
        self.stop(signum)
        self.start()

    def last_words(self) -> str:
        """The end of the server's log, as one line."""
        if not self.log.exists():
            return "it said nothing"
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return " | ".join(line.strip() for line in lines[-3:]) or "it said nothing"

    # --- PVE's processes -----------------------------------------------------------------------

    def session(self, **env: str) -> PerlSession:
        """A PVE process of its own, under ``perl -T``."""
        session = PerlSession(env={**self.env, **env})
        self._sessions.append(session)
        return session

    def perl(self, code: str, *args: object, **options: Any) -> PerlResult:
        """Run a few lines of Perl in the node's usual PVE process."""
        if self._session is None:
            self._session = self.session()
        return self._session.run(code, *args, **options)

    def forget_session(self) -> None:
        """After a crash: the next call gets a new process."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def api(self, method: str, param: Mapping[str, object]) -> PerlResult:
        """PVE's storage API: create, update, delete."""
        result = self.perl(CREATE, {"-method": method, **param})
        self.refresh()
        return result

    def refresh(self) -> None:
        """Notice changed files, as PVE's daemons do before each request."""
        self.perl("PVE::Cluster::cfs_update(); undef")

    def beside(self, prefix: tuple[str, ...] = ()) -> Sandbox:
        """Another node with the same configuration; *prefix* wraps its server's command."""
        number = len(list(self.base.glob("node*")))
        apiver = int(self.env["PVE_STANDIN_APIVER"])
        other = Sandbox(self.base / f"node{number}", self._plugin, self.type, apiver, prefix)
        shutil.copytree(self.etc, other.etc, dirs_exist_ok=True)
        shutil.copytree(self.manifests, other.manifests, dirs_exist_ok=True)
        return other

    def close(self) -> None:
        """End every process and remove the directory."""
        for session in self._sessions:
            session.close()
        self.stop()
        subprocess.run(  # base images are immutable, even for whoever tidies up
            ["chattr", "-R", "-f", "-i", str(self.base)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        shutil.rmtree(self.base, ignore_errors=True)


def modules() -> str:
    """Whose PVE modules are used, for the report."""
    return "genuine PVE modules" if is_genuine() else "the bundled stand-in for PVE"
