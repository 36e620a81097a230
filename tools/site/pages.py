# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/ and for whom they are: the site's navigation and the lists of docs/index.md.

A page that doesn't exist (yet) is left out of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

PARTS: Final = {
    "Write a plugin": (
        *("tutorial", "plugin-author", "guide/lifecycle", "guide/configuration", "guide/names"),
        *("guide/errors", "guide/time", "guide/concurrency", "guide/secrets", "guide/running"),
        *("guide/testing", "trace", "check", "detection", "from-perl", "glossary"),
    ),
    "How to": (
        *("howto/rest-array", "howto/cli-tool", "howto/iscsi", "howto/snapshots"),
        *("howto/clones", "howto/multi-node"),
    ),
    "Run it on nodes": ("admin", "doctor", "performance", "packaging"),
    "Reference": ("methods", "sdk", "protocol"),
    "How it works": ("architecture", "contract", "checklist"),
}
"""Part of the navigation → its pages."""

READERS: Final = {
    "You run PVE nodes": (
        ("admin", "install, add a storage, upgrade, remove"),
        ("doctor", "a storage doesn't work: what to look at, in which order"),
        ("howto/multi-node", "what has to be the same on all nodes"),
        ("performance", "what the bridge costs, measured"),
        ("architecture", "what runs where, and why"),
    ),
    "You write a plugin": (
        ("tutorial", "an hour, from an empty directory to a tested package"),
        ("plugin-author", "the guide: everything a plugin can do, page by page"),
        ("howto/rest-array", "sessions, timeouts, mappings of this host only"),
        ("howto/cli-tool", "commands, their output, their failures"),
        ("howto/iscsi", "how a device comes, grows and goes"),
        ("howto/snapshots", "four verbs, and what PVE expects of them"),
        ("howto/clones", "two verbs, and who depends on whom"),
        ("howto/multi-node", "shared storages, locks, live migration"),
        ("from-perl", "a PVE plugin in Perl, and the same in Python"),
        ("check", "is it right? The conformance suite"),
        ("trace", "what PVE asks, live, recorded, replayed"),
        ("methods", "reference: each method PVE can call"),
        ("sdk", "reference: each name of the Python package"),
        ("glossary", "storage, storeid, volname, volid, content, map, hint …"),
    ),
    "You package one": (
        ("packaging", "a Debian package that installs, upgrades and goes without a trace"),
        ("guide/running", "the process, its own Python, its log"),
        ("guide/configuration", "why no option may become required later"),
    ),
    "You work on the bridge itself": (
        ("architecture", "the parts and why they are so"),
        ("contract", "what PVE asks of a storage plugin, with traps and a checklist"),
        ("checklist", "each statement of it, and the test that proves it"),
        ("protocol", "the wire, complete enough for another client"),
    ),
}
"""Reader → (page, what it is for him), in the order to read them."""


SHORT: Final = {
    "contract": "PVE's contract",
    "check": "Conformance suite",
    "glossary": "PVE's words",
    "howto/rest-array": "REST array",
    "howto/cli-tool": "Command-line tool",
    "plugin-author": "Author's guide",
}
"""Page → its name where its heading is too long."""


def exists(page: str, docs: Path = DOCS) -> bool:
    """Whether the page has been written."""
    return (docs / f"{page}.md").exists()


def title(page: str) -> str:
    """What a list calls the page: its first heading, or something shorter."""
    lines = (DOCS / f"{page}.md").read_text("utf-8").splitlines()
    return SHORT.get(page) or next(line[2:] for line in lines if line.startswith("# "))


def paths() -> str:
    """The Markdown of docs/index.md that shows each reader the way."""
    out = []
    for reader, listed in READERS.items():
        rows = [f"- [{title(page)}]({page}.md): {what}" for page, what in listed if exists(page)]
        out += [f"## {reader}", "", *rows, ""]
    return "\n".join(out)


def toctrees(docs: Path) -> str:
    """The same for Sphinx: one hidden list of pages for each part."""
    out = []
    for caption, listed in PARTS.items():
        found = [page for page in listed if exists(page, docs)]
        there = "\n".join(f"{SHORT[page]} <{page}>" if page in SHORT else page for page in found)
        if there:
            out.append(f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{there}\n```\n")
    return "".join(out)
