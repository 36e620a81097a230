# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""D. Names: what parse_volname and path say of them."""

from __future__ import annotations

from typing import Final

from ..node import Node
from ..outcome import NotApplicable
from ..subject import Subject

NEVER_NAMES: Final = (
    "",
    " ",
    "..",
    "/etc/passwd",
    "../../etc/passwd",
    "vm-100-",
    "vm--disk-0",
    "vm-abc-disk-0",
    "vm-100-disk-0 x",
    "pvevm-100-disk-0",
)


def odd_names_are_refused(s: Subject) -> None:
    """C-042: and variations of a good name, too."""
    volid = s.volume()
    good = volid.partition(":")[2]
    owner = str(s.vmid)
    bad = [good.replace(owner, "abc")]
    if not s.has_path:  # there, directories tell the owner
        bad.append(good.replace(f"-{owner}-", f"-{owner}x-"))
    bad += [f"{good} ", f"{good}\n", f" {good}", f"{good}/../x", f"../{good}"]
    code = "[PVE::Storage::Plugin->lookup($ARGS[0])->parse_volname($ARGS[1])]"
    for name in dict.fromkeys([*NEVER_NAMES, *bad]):
        answer = s.run(f"$class->parse_volname({name!r})", code, s.type, name)
        if answer.error is None:
            s.fail("that is no volume name of PVE's, and must be refused")


def _check(s: Subject, what: str, volid: str, owner: int) -> None:
    answer = s.attempt("parse_volname", volid, context="list")
    if answer.error is not None:
        s.fail(f"the name that {what} gave can't be parsed")
    if str(answer.value[2]) != str(owner):
        s.fail(f"{what} made it for guest {owner}, the name says {answer.value[2]}")


def names_tell_the_owner(s: Subject) -> None:
    """C-043: whoever made the volume."""
    volid = s.volume()
    _check(s, "vdisk_alloc", volid, s.vmid)
    if s.feature("rename", volid):
        moved = s.own(s.ask("rename_volume", s.volume(), s.vmid + 1))
        _check(s, "rename_volume", moved, s.vmid + 1)
    if not s.feature("template", volid):
        return
    base = s.own(s.ask("vdisk_create_base", volid))
    _check(s, "vdisk_create_base", base, s.vmid)
    if s.feature("clone", base):
        clone = s.own(s.ask("vdisk_clone", base, s.vmid + 2))
        _check(s, "vdisk_clone", clone, s.vmid + 2)


def base_names(s: Subject) -> None:
    """C-044: the name says so, and the old one is gone."""
    volid = s.volume()
    if not s.feature("template", volid):
        raise NotApplicable("volume_has_feature says that volumes can't become templates")
    base = s.own(s.ask("vdisk_create_base", volid))
    if not s.parse(base)[5]:
        s.fail("index 5 of parse_volname must be true for a base image")
    if volid in s.volids():
        s.fail(f"the old name '{volid}' is still listed")
    if base not in s.volids():
        s.fail(f"the base image '{base}' is not listed")


def paths_are_unique_and_the_same_everywhere(s: Subject) -> None:
    """C-053: also in another process of the plugin."""
    one, two = s.volume(), s.volume()
    paths = s.ask("path", one), s.ask("path", two)
    if paths[0] == paths[1]:
        s.fail(f"'{one}' and '{two}' have the same path")
    s.ask("activate_volumes", [one])
    active = s.ask("path", one)
    if active != paths[0]:
        s.fail(f"the path was '{paths[0]}' before activation and is '{active}' now")
    s.ask("deactivate_volumes", [one])
    node = other_node(s)
    try:
        there = s.attempt("path", one, session=node.session())
    finally:
        node.close()
    # what a plugin puts below the node's own run directory is under /run on a real one
    same = str(there.value).replace(str(node.base), str(s.node.base))
    if there.error is not None or same != paths[0]:
        s.fail(f"on another node the path is not '{paths[0]}'")


def other_node(s: Subject, prefix: tuple[str, ...] = ()) -> Node:
    """A second node with the same storages and a plugin server of its own."""
    node = s.node.beside(prefix)
    node.start()
    return node


def path_tells_owner_and_type(s: Subject) -> None:
    """C-054: (path, owner, vtype)."""
    found = s.ask("path", s.volume(), context="list")
    if len(found) != 3 or str(found[1]) != str(s.vmid) or found[2] != "images":
        s.fail(f"path must give (path, {s.vmid}, 'images')")


CHECKS: Final = {
    "C-042": odd_names_are_refused,
    "C-043": names_tell_the_owner,
    "C-044": base_names,
    "C-053": paths_are_unique_and_the_same_everywhere,
    "C-054": path_tells_owner_and_type,
}
