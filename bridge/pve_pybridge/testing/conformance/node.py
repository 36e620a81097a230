# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A pretended PVE node in a directory of its own: a real server of the plugin, PVE's processes.

Nothing of the machine's own PVE is read or changed; only the plugin's backend is the real one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ...errors import StorageError
from ..perl import PerlResult, is_genuine
from ..sandbox import Sandbox, end

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


class Node(Sandbox):
    """A sandbox whose plugin server may be ended and started again, and with other nodes beside."""

    _start_seconds = 20

    def __init__(
        self,
        base: Path,
        plugin: str,
        type_: str,
        apiver: int,
        prefix: tuple[str, ...] = (),
    ):
        super().__init__(base)
        self.trace = base / "trace.json"
        self.manifest = self.manifests / f"{type_}.json"
        """Where the shim looks for the manifest."""
        self._plugin = plugin
        self._type = type_
        self._apiver = apiver
        self._prefix = prefix
        self.env["PVE_STANDIN_APIVER"] = str(apiver)
        self.config_file.write_text(DISABLED_LOCAL)
        self._server: subprocess.Popen[bytes] | None = None

    # --- the plugin's server -------------------------------------------------------------------

    def _bridge(self) -> list[str]:
        return [*self._prefix, *super()._bridge(), "--log-level", "debug"]

    def start(self) -> None:
        """Start the server and wait until it listens."""
        try:
            self._server = self.serve(self._plugin, "--trace", str(self.trace))
        except StorageError:
            raise StorageError(f"the plugin's server doesn't start: {self.last_words()}") from None

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
        if self._server is not None:
            end(self._server, signum, STOP_SECONDS)
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

    def forget_session(self) -> None:
        """After a crash: the next call gets a new process."""
        if self._perl is not None:
            self._perl.close()
            self._perl = None

    def api(self, method: str, param: Mapping[str, object]) -> PerlResult:
        """PVE's storage API: create, update, delete."""
        result = self.perl(CREATE, {"-method": method, **param})
        self.refresh()
        return result

    def refresh(self) -> None:
        """Notice changed files, as PVE's daemons do before each request."""
        self.perl("PVE::Cluster::cfs_update(); undef")

    def beside(self, prefix: tuple[str, ...] = ()) -> Node:
        """Another node with the same configuration; *prefix* wraps its server's command."""
        number = len(list(self.base.glob("node*")))
        base = self.base / f"node{number}"
        other = Node(base, self._plugin, self._type, self._apiver, prefix)
        shutil.copytree(self.etc, other.etc, dirs_exist_ok=True)
        shutil.copytree(self.manifests, other.manifests, dirs_exist_ok=True)
        return other

    def close(self) -> None:
        """End every process and remove the directory."""
        self.stop()
        self._stack.close()
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
