# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What PVE itself makes of the manifests: its modules loaded in a Perl of its own, under -T.

``enable`` and ``doctor`` ask here instead of repeating the shim's rules: which types get
registered, what collides, which Perl modules are there.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import StorageError, one_line
from .paths import perl_options

_SCRIPT: Final = Path(__file__).with_suffix(".pl")


class NoPve(StorageError):
    """There are no PVE modules on this machine."""


@dataclass(frozen=True)
class Registered:
    """What a PVE process has after loading its storage plugins."""

    facts: dict[str, Any]
    """As pve.pl tells them."""
    said: tuple[str, ...]
    """Lines on STDERR: each is shown by every PVE command, too."""

    def of(self, type_: str) -> list[str]:
        """The lines about one of our types."""
        about = (f"type '{type_}'", f"/{type_}.json ")
        return [line for line in self.said if any(part in line for part in about)]


def load(manifests: Path | None = None, timeout: float = 20) -> Registered:
    """Load PVE's storage plugins; StorageError when that fails, for then every PVE daemon fails."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PERL5")}
    if manifests is not None:
        env["PVE_PYBRIDGE_MANIFESTS"] = str(manifests)
    try:
        done = subprocess.run(
            ["perl", "-T", *perl_options(), str(_SCRIPT)],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(f"loading PVE's storage modules took more than {timeout:g} s") from None
    except FileNotFoundError:
        raise NoPve("there is no perl on this machine") from None
    said = tuple(done.stderr.decode("utf-8", "replace").splitlines())
    if done.returncode != 0:
        if any("Can't locate PVE/Storage.pm" in line for line in said):
            raise NoPve("there are no PVE modules on this machine")
        raise StorageError(f"PVE's storage modules don't load: {one_line(' '.join(said[-2:]))}")
    return Registered(json.loads(done.stdout.decode().splitlines()[-1]), said)
