# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Volume names and the other answers that never cross the socket, as data (D5).

Name patterns and rules are read by the manifest, so that the shim answers in Perl, and evaluated
here for the plugin itself.  Both sides must agree: a test runs every table through both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .errors import StorageError
from .model import VolumeName


@dataclass(frozen=True, slots=True)
class NamePattern:
    """One shape of volume name: a regular expression that Perl and Python read alike.

    Named groups fill the answer: ``name`` (required), ``vmid``, ``basename``, ``basevmid``,
    ``base`` (matched means: is a base image), ``format``.  *format* may hold ``{format}``.
    Write ``[0-9]`` for digits; the whole name must match.
    """

    vtype: str
    pattern: str
    format: str = "raw"


IMAGE_FORMATS: Final = "raw|qcow2|vmdk|subvol"
_IMAGE: Final = rf"(?!snap-[^/\s]*\.qcow2\Z)(?P<base>base-)?[^/\s]+\.(?P<format>{IMAGE_FORMATS})"
_BASE_IMAGE: Final = rf"(?!snap-[^/\s]*\.qcow2/)[^/\s]+\.(?:{IMAGE_FORMATS})"
_VMID: Final = "(?:0|[1-9][0-9]*)"  # 007 and 7 would be two names of one directory
_SAFE: Final = r"[ a-zA-Z0-9.+=_-]"
_BACKUP: Final = r"\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)"

# The usual shape first: a name is held against one pattern after the other.
DIRECTORY_NAMES: Final = (
    NamePattern("images", rf"(?P<vmid>{_VMID})/(?P<name>{_IMAGE})", "{format}"),
    NamePattern(
        "images",
        rf"(?P<basevmid>{_VMID})/(?P<basename>{_BASE_IMAGE})/(?P<vmid>{_VMID})/(?P<name>{_IMAGE})",
        "{format}",
    ),
    NamePattern("iso", r"iso/(?P<name>[^/\n]+\.(?i:iso|img))"),
    NamePattern("vztmpl", r"vztmpl/(?P<name>[^/\n]+\.(?i:tar(?:\.(?:gz|xz|zst|bz2))?))"),
    NamePattern(
        "backup", rf"backup/(?P<name>vzdump-(?:openvz|lxc|qemu)-(?P<vmid>[0-9]+)-[^/\n]*{_BACKUP})"
    ),
    NamePattern("backup", rf"backup/(?P<name>[^/\n]+{_BACKUP})"),
    NamePattern("snippets", r"snippets/(?P<name>(?!\.\.?\Z)[^/\n]+)"),
    NamePattern(
        "import",
        rf"import/(?P<name>{_SAFE}+\.ova/{_SAFE}+\.(?P<format>qcow2|raw|vmdk))",
        "ova+{format}",
    ),
    NamePattern(
        "import", rf"import/(?P<name>{_SAFE}+\.(?P<format>ova|ovf|qcow2|raw|vmdk))", "{format}"
    ),
)
"""The names of PVE's directory storages."""

BLOCK_NAMES: Final = (
    NamePattern("images", r"(?P<name>(?:(?P<base>base-)|vm-)(?P<vmid>[0-9]+)-[^/\s]+)"),
    NamePattern(
        "images",
        r"(?P<basename>base-(?P<basevmid>[0-9]+)-[^/\s]+)/(?P<name>(?:(?P<base>base-)|vm-)(?P<vmid>[0-9]+)-[^/\s]+)",
    ),
)
"""Raw volumes: ``vm-N-…``, ``base-N-…`` and linked clones ``base-N-…/vm-M-…``."""


def parse_volname(patterns: Sequence[NamePattern], volname: str) -> VolumeName:
    """The parts of *volname* by the first pattern that fits; StorageError when none does."""
    for pattern in patterns:
        match = re.fullmatch(pattern.pattern, volname, re.ASCII)
        if match is None:
            continue
        group = match.groupdict()
        return VolumeName(
            vtype=pattern.vtype,
            name=group["name"],
            vmid=_int(group.get("vmid")),
            base_name=group.get("basename"),
            base_vmid=_int(group.get("basevmid")),
            is_base=group.get("base") is not None,
            format=pattern.format.replace("{format}", group.get("format") or ""),
        )
    raise StorageError(f"unable to parse volume name '{volname}'")


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


@dataclass(frozen=True, slots=True)
class Rule:
    """If all of *when* holds, the static method answers *answer*; the first such rule wins.

    Facts that *when* may name: ``feature``, ``vtype``, ``format``, ``state`` (current base snap),
    ``running``, ``snapshot``, ``base_snapshot``, ``with_snapshots`` (whether given),
    ``target_format`` (the formats the caller can work with; absent means any) and
    ``option:NAME`` (a storage.cfg property is set).  A list means "one of these".
    """

    answer: object
    when: Mapping[str, object] = field(default_factory=dict)

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Whether every condition is met; a fact nobody gave counts as false."""
        return all(_meets(facts.get(key), wanted) for key, wanted in self.when.items())


def _meets(fact: object, wanted: object) -> bool:
    if isinstance(wanted, bool):
        return (isinstance(fact, list) or bool(fact)) is wanted  # given counts, even if empty
    if isinstance(fact, list):
        return any(item in fact for item in _as_list(wanted))
    return fact in _as_list(wanted)


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def answer(rules: Sequence[Rule], facts: Mapping[str, object]) -> object:
    """The answer of the first rule that holds, or None."""
    return next((rule.answer for rule in rules if rule.holds(facts)), None)
