# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A healthy node to make sick: one plugin enabled, served, with a storage and a secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bridge_util import BRIDGE, Node, Server

VAULT = """
    from dataclasses import dataclass
    from pathlib import Path
    from pve_pybridge import Secret, Status, StorageConfig, StorageError, StoragePlugin
    from pve_pybridge import option, secret

    @dataclass(frozen=True, kw_only=True)
    class VaultConfig(StorageConfig):
        folder: str = option("Where the volumes are", fixed=True)
        keyring: Secret | None = secret("The key", builtin="keyring")

    class Vault(StoragePlugin[VaultConfig]):
        type = "vault"

        def path(self, storage, volname, snapname):
            return volname

        def status(self, storage):
            if Path(storage.config.folder, "expired").exists():
                raise StorageError("the session has expired")
            gone = Path(storage.config.folder, "gone").exists()
            return Status(total=3, avail=2, used=1, active=not gone)

        def list_images(self, storage, vmid, vollist):
            return []
"""


class Patient:
    """The node, and what the doctor says of it."""

    def __init__(self, node: Node):
        self.node = node
        self.prefix: list[str] = []
        """Where the doctor is to look: ``nsenter …``."""
        self.plugin = node.plugin("vault", VAULT)
        self.manifest = node.manifests / "vault.json"
        self.socket = node.run / "vault.sock"
        location = str(self.plugin)
        node.cli("manifest", location, "--location", location, "-o", str(self.manifest))
        self.server = self.serve()
        node.add("v1", "vault", vault_folder=node.base)
        self.secret = node.etc / "priv" / "storage" / "v1.keyring"
        self.secret.parent.mkdir(mode=0o700, parents=True)
        self.secret.parent.parent.chmod(0o700)
        self.secret.touch(0o600)

    def serve(self) -> Server:
        server = Server(self.node, "--type=vault", "vault")
        self.node.servers.append(server)
        return server

    def edit(self, **changes: Any) -> None:
        """Change the manifest by hand."""
        data = json.loads(self.manifest.read_text())
        self.manifest.write_text(json.dumps({**data, **changes}))

    def examine(self, *checks: str) -> dict[str, Any]:
        """The doctor's JSON, whose level is also the exit status."""
        done = subprocess.run(
            [*self.prefix, *BRIDGE, "doctor", "--json", *checks],
            env={**os.environ, **self.node.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == ["ok", "warning", "fault"].index(told["level"])
        return told

    def findings(self, *checks: str) -> list[tuple[str, str, str, str]]:
        """(check, level, where, what) of all findings; each says how to mend it."""
        told = self.examine(*checks)
        found = [(check["name"], one) for check in told["checks"] for one in check["findings"]]
        assert all(one["mend"] for _, one in found)
        return [(name, one["level"], one["where"], one["what"]) for name, one in found]

    def perl_library(self) -> Path:
        """A directory for Perl modules."""
        library = self.node.base / "lib"
        library.mkdir(exist_ok=True)
        return library

    def perl_options(self, *more: str) -> None:
        """Put options before those that find PVE's modules."""
        options = self.node.env["PVE_PYBRIDGE_PERL_OPTIONS"]
        self.node.env["PVE_PYBRIDGE_PERL_OPTIONS"] = " ".join((*more, options))
