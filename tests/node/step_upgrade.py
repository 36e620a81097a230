# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Higher versions under load: no call fails, only what changed is restarted, PVE hears when due."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from . import packages
from .context import LOCAL, Context, expect
from .machine import Failed

CALLERS: Final = 16
PYTHON: Final = "usr/lib/python3/dist-packages/pve_pybridge"
SHIM: Final = "usr/share/pve-pybridge/perl/PVE/Storage"
NOTE: Final = "\n# newer\n"

PLUGIN: Final = packages.append("usr/share/pve-pybridge-plugins/pynbd.py", NOTE)
SERVER: Final = packages.append(f"{PYTHON}/server.py", NOTE)
PERL: Final = packages.replace(f"{SHIM}/Custom/PyBridge.pm", "\n1;\n", "\n1;\n# newer\n")
MANIFEST: Final = packages.replace(
    "etc/pve-pybridge/plugins.d/pydir.json", '"shared": false', '"shared":  false'
)


@contextmanager
def busy(node: Context) -> Iterator[dict[str, Any]]:
    """Callers at work meanwhile; afterwards their account is in the dictionary."""
    account: dict[str, Any] = {}
    callers = node.machine.background("callers", CALLERS, [f"s-{type_}" for type_ in LOCAL])
    try:
        node.wait("the callers", lambda: len(node.running()) >= len(LOCAL))
        time.sleep(3)
        yield account
        time.sleep(2)
    finally:
        node.machine.run("touch /run/node-test-stop")
        told, errors = callers.communicate(timeout=120)
    if callers.returncode != 0:
        raise Failed(f"the callers: {errors}")
    account.update(json.loads(told))


def upgrade(
    node: Context, suffix: str, edits: Mapping[str, packages.Edit]
) -> tuple[list[str], int]:
    """To a higher version; which running services are new, and how often PVE's trigger fired."""
    version = node.version + suffix
    node.variant(version, edits)
    before = node.pids()
    node.triggers()
    node.install(version)
    node.consistent()
    now = node.machine.out("dpkg-query -W -f '${Version} ' " + " ".join(packages.NAMES)).split()
    expect(set(now) == {version}, f"installed are {now}")
    after = node.pids()
    return sorted(t for t in LOCAL if before[t] != after[t]), node.triggers()


def under_load(node: Context) -> str:
    """One plugin's code changed; then the bridge's own Python."""
    told = []
    for suffix, edits, expected, what in (
        ("+1", {"pve-pybridge-plugins": PLUGIN}, ["pynbd"], "pynbd.py changed"),
        (
            "+2",
            {"pve-pybridge-plugins": PLUGIN, "python3-pve-pybridge": SERVER},
            list(LOCAL),
            "server",
        ),
    ):
        with busy(node) as account:
            restarted, triggers = upgrade(node, suffix, edits)
        expect(not account["failed"], f"failed calls: {account['failed'][:3]}")
        expect(restarted == expected, f"{what}: restarted were {restarted}")
        expect(triggers == 0, f"{what}: PVE's trigger fired {triggers} times")
        told.append(
            f"{what}: {account['calls']} calls, 0 failed, slowest {account['slowest_ms']:.0f} ms,"
            f" restarted {len(restarted)} of {len(LOCAL)}"
        )
    return f"{CALLERS} callers; " + "; ".join(told) + "; PVE's trigger 0 times"


def triggers(node: Context) -> str:
    """PVE's daemons load plugins again when the shim or static data changed."""
    node.active()  # so that all services run
    edits = {"pve-pybridge-plugins": PLUGIN, "python3-pve-pybridge": SERVER, "pve-pybridge": PERL}
    restarted, fired = upgrade(node, "+3", edits)
    expect((restarted, fired) == ([], 1), f"shim: restarted {restarted}, trigger {fired} times")

    def both(root: Any) -> None:
        PLUGIN(root)
        MANIFEST(root)

    restarted, fired = upgrade(node, "+4", {**edits, "pve-pybridge-plugins": both})
    told = f"manifest: restarted {restarted}, trigger {fired} times"
    expect((restarted, fired) == (["pydir"], 1), told)
    return "shim changed: fired once, no service restarted; a manifest: fired once, 1 service"


def downgrade(node: Context) -> str:
    """Back to the first version, and the same once more."""
    node.active()
    node.install(node.version)
    node.consistent()
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), f"inactive: {node.active()}")
    before = node.pids()
    node.triggers()
    node.apt("install --reinstall " + " ".join(f"{one}={node.version}" for one in packages.NAMES))
    node.consistent()
    expect(node.pids() == before, "a reinstallation restarted services")
    expect(node.triggers() == 0, "a reinstallation fired PVE's trigger")
    return "downgraded, all active; reinstalled: no restart, no trigger"
