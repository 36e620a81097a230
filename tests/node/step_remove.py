# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Removing keeps what the administrator has; purging says what goes, saves it, leaves nothing."""

from __future__ import annotations

from . import packages
from .context import LOCAL, TYPES, Context, expect, sections
from .step_install import why_inactive

OURS = [f"s-{type_}" for type_ in TYPES]
PLUGINS = "pve-pybridge-plugins"
BACKUP = "/var/backups/pve-pybridge/storage.cfg"
STORAGES = "/usr/libexec/pve-pybridge/storages"


def kept(node: Context) -> list[str]:
    """Our storages that are left after PVE has written storage.cfg."""
    return [name for name in sections(node.rewrite()) if name in OURS]


def dialogue(node: Context, words: str, answer: str) -> str:
    """dpkg, asking an administrator at a terminal who types *answer*."""
    environment = "DEBIAN_FRONTEND=teletype TERM=dumb"
    typed = f"for _ in $(seq 40); do sleep 1; echo {answer}; done"  # programs drop what comes early
    script = f"({typed}) | {environment} script -qec '{words}' /dev/null 2>&1"
    return node.machine.run(script, check=False, timeout=60).stdout


def plugins(node: Context) -> str:
    """The plugins without their files: types stay, storages are inactive and say why."""
    told = node.apt(f"remove {PLUGINS}")
    node.consistent()
    expect("inactive until" in told and "s-pydir" in told, f"removal didn't say so: {told}")
    expect(kept(node) == OURS, f"PVE kept only {kept(node)}")
    reason = why_inactive(node, "s-pydir")
    expect("pydir.py is gone" in reason, f"the reason isn't clear: {reason}")
    expect(not node.machine.out("ls /run/pve-pybridge"), "sockets are left")
    node.install(node.version, PLUGINS)
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), "not active after installing again")
    return f"removed: 4 types registered, 4 sections kept, inactive: {reason}"


def purge_plugins(node: Context) -> str:
    """Purging, refused first, then not."""
    node.triggers()
    told = dialogue(node, f"dpkg --purge {PLUGINS}", "no")
    expect("Unregister storage types" in told, f"nobody was asked: {told}")
    node.consistent()
    expect(kept(node) == OURS, f"refused, and yet PVE kept only {kept(node)}")
    expect(node.triggers() == 0, "refused, and yet PVE's trigger fired")
    node.install(node.version, PLUGINS)
    told = node.apt(f"purge {PLUGINS}")
    node.consistent()
    expect("PVE forgets" in told and all(one in told for one in OURS), f"not said: {told}")
    expect(node.triggers() >= 1, "PVE wasn't told")
    expect(kept(node) == [], f"purged, and yet PVE kept {kept(node)}")
    saved = sections(node.machine.out(f"cat {BACKUP}"))
    expect(set(OURS) <= set(saved), f"saved are {saved}")
    told = node.install(node.version, PLUGINS)
    expect("can be had back by" in told, f"not offered: {told}")
    node.machine.run(f"{STORAGES} restore {' '.join(TYPES)}")
    expect(kept(node) == OURS, f"restored are {kept(node)}")
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), "restored storages aren't active")
    return "asked: refusal keeps all; agreed: said, 4 sections saved, dropped by PVE, restored"


def bridge(node: Context) -> str:
    """The shim itself goes: asked first, sections saved, offered when it is there again."""
    told = dialogue(node, "dpkg --remove pve-pybridge-plugins pve-pybridge", "no")
    status = node.machine.out("dpkg-query -W -f '${db:Status-Status}' pve-pybridge")
    expect(status == "installed", f"refused, but it is '{status}': {told}")
    node.consistent()
    node.install(node.version, PLUGINS)
    expect(kept(node) == OURS, f"refused, and yet PVE kept only {kept(node)}")
    told = node.apt("remove pve-pybridge")
    node.consistent()
    expect("PVE forgets" in told, f"not said: {told}")
    expect(kept(node) == [], f"without the shim PVE kept {kept(node)}")
    asked = dialogue(node, reinstall(node), "yes")
    expect("Put saved storages back" in asked, f"not offered: {asked}")
    node.consistent()
    expect(kept(node) == OURS, f"restored are {kept(node)}")
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), "restored storages aren't active")
    return "refusal keeps all; removed: said, saved; installed again: offered, 4 sections back"


def reinstall(node: Context) -> str:
    """The command that installs all of it."""
    wanted = " ".join(f"{name}={node.version}" for name in packages.NAMES)
    return f"apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0 install {wanted}"


def everything(node: Context) -> str:
    """Purged, all of it: nothing is left but the backup."""
    node.apt("purge pve-pybridge pve-pybridge-plugins")
    node.consistent()
    expect(kept(node) == [], f"PVE kept {kept(node)}")
    loading = node.perl("undef")["loading"]
    expect(not loading, f"PVE's modules warn: {loading}")
    node.apt("purge python3-pve-pybridge")  # which has the stand-in
    node.consistent()
    # What plugins have in /run belongs to volumes that guests may use.
    skip = (
        *("/var/lib/node-repository*", "/var/lib/apt/*", "/usr/share/perl5/PVE"),
        *("/run/pve-pybridge-loop*", "/run/pve-pybridge-nbd*"),
    )
    options = " ".join(f"-not -path '{one}'" for one in skip)
    find = f"find /etc /var/lib /usr /run -path '*pve*bridge*' {options}"
    perl = "ls -d /usr/share/perl5/PVE 2>/dev/null"
    if node.genuine:  # PVE's own; the testing kit makes it for the loader where there is no package
        own = "/usr/share/perl5/PVE/Storage/Custom"
        node.machine.run(f"rmdir -p --ignore-fail-on-non-empty {own}")
    left = node.machine.out(f"{find}; {perl}", check=False)
    expect(not left, f"left behind: {left}")
    return "nothing left in /etc, /var/lib, /usr, /run; PVE loads without a word"
