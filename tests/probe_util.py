# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The probe plugin from a test's side: start it, call it through Perl, read what it saw."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bridge_util import Node, Server
from pve_pybridge import loader, manifest
from pve_pybridge.testing.perl import PerlResult

PROBE: Final = Path(__file__).parent / "plugins" / "probe.py"
BARE: Final = Path(__file__).parent / "plugins" / "bare.py"
VOLUME: Final = "vm-100-disk-0"
CALL: Final = """
    my ($class, $method, @given) = @ARGS;
    return "PVE::Storage::Custom::PyBridge::$class"->$method(@given);
"""


class Probe:
    """A node on which the probe plugin (and the bare one) are served."""

    def __init__(self, node: Node):
        self.node = node
        enable_both(node)
        self.server = self.serve(PROBE)

    def serve(self, plugin: Path) -> Server:
        """Start a server; its manifest is there already."""
        server = Server(self.node, str(plugin), plugin.stem)
        self.node.servers.append(server)
        return server

    @functools.cached_property
    def bare(self) -> Server:
        """The bare plugin's server, started when first asked for."""
        return self.serve(BARE)

    @property
    def record(self) -> Path:
        """Where the plugin writes what it saw."""
        return self.node.run / "probe.seen"

    def seen(self, method: str | None = None) -> list[dict[str, Any]]:
        """All calls so far, or those of one method."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if method in (None, entry["method"])]

    def last(self, method: str) -> dict[str, Any]:
        """The latest call of a method."""
        return self.seen(method)[-1]

    def call(self, method: str, *args: object, **options: Any) -> PerlResult:
        """Call the class method with PVE's own arguments."""
        return self.node.perl(CALL, "probe", method, *args, **options)

    def fault(self, mode: str, value: str = "", **more: object) -> dict[str, object]:
        """A section that makes the plugin misbehave."""
        return scfg(probe_mode=mode, probe_value=value, **more)

    def wait_for(self, method: str, seconds: float = 10) -> dict[str, Any]:
        """The latest call of a method, as soon as there is one."""
        wait_until(lambda: bool(self.seen(method)), seconds)
        return self.last(method)


@functools.cache
def _manifests() -> tuple[tuple[str, str], ...]:
    return tuple(
        (path.stem, json.dumps(manifest.build(loader.load(str(path))))) for path in (PROBE, BARE)
    )


def enable_both(node: Node) -> None:
    """Install both manifests, without starting a process for each."""
    for name, text in _manifests():
        (node.manifests / f"{name}.json").write_text(text)


def scfg(**properties: object) -> dict[str, object]:
    """A decoded section, as PVE hands it to plugins."""
    given = {key.replace("_", "-"): value for key, value in properties.items()}
    return {"type": "probe", "content": {"images": 1}, **given}


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Until it holds; AssertionError when that takes too long."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "did not happen"
        time.sleep(0.02)


def printed(answer: PerlResult) -> list[str]:
    """The lines on STDERR."""
    return answer.stderr.splitlines()
