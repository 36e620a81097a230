# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""D. Listing: which volumes appear, and what is said of each."""

from __future__ import annotations

from typing import Any, Final

from ..outcome import NotApplicable
from ..subject import SECOND, STOREID, Subject
from .storages import UNREACHABLE, unreachable

LIST_TWICE: Final = """
    my ($storeid, $vmid) = @ARGS;
    my $scfg = PVE::Storage::config()->{ids}->{$storeid};
    my $class = PVE::Storage::Plugin->lookup($scfg->{type});
    my $cache = { foreign => { deep => [1] }, activated => { other => 1 } };
    my $first = $class->list_images($storeid, $scfg, $vmid, undef, $cache);
    my $count = scalar(@$first);
    $_->{volid} = 'spoiled' for @$first;
    push @$first, { volid => 'spoiled' };
    my $second = $class->list_images($storeid, $scfg, $vmid, undef, $cache);
    my $third = $class->list_images($storeid, $scfg, $vmid, undef, undef);
    return [$count, $second, $third, $cache->{foreign}, $cache->{activated}];
"""


def _rows(s: Subject, *args: object, storeid: str = STOREID) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = s.ask("vdisk_list", storeid, *args)[storeid]
    return found


def _three(s: Subject) -> tuple[str, str, str]:
    return s.volume(), s.volume(), s.volume(vmid=s.vmid + 1)


def of_one_guest(s: Subject) -> None:
    """C-046: $vmid filters."""
    one, two, other = _three(s)
    found = sorted(row["volid"] for row in _rows(s, s.vmid))
    if found != sorted([one, two]):
        s.fail(f"guest {s.vmid} has {sorted([one, two])}, the list says {found}")
    everything = [row["volid"] for row in _rows(s)]
    if other not in everything or one not in everything:
        s.fail("a list without $vmid must hold the volumes of all guests")


def of_given_volumes(s: Subject) -> None:
    """C-047: $vollist decides alone."""
    one, _, other = _three(s)
    missing = one.replace("disk-0", "disk-77")
    for vmid in (None, s.vmid, s.vmid + 5):
        found = sorted(row["volid"] for row in _rows(s, vmid, [one, other, missing]))
        if found != sorted([one, other]):
            s.fail(f"of {[one, other, missing]} the first two exist, the list says {found}")
    if s.unreachable is None:
        return
    with unreachable(s):
        answer = s.attempt("vdisk_list", UNREACHABLE, s.vmid)
        if answer.error is None:
            s.fail("the backend is unreachable: an error must not become an empty list")


def rows_are_complete(s: Subject) -> None:
    """C-048: volid, format, vmid, size; nothing twice."""
    volid = s.volume(4096)
    rows = _rows(s, s.vmid)
    if [row["volid"] for row in rows] != [volid]:
        s.fail(f"'{volid}' must be listed once")
    row = rows[0]
    format_ = s.parse(volid)[6]
    if row.get("format") != format_:
        s.fail(f"format is {row.get('format')!r}, the name says '{format_}'")
    if str(row.get("vmid")) != str(s.vmid):
        s.fail(f"vmid is {row.get('vmid')!r} and must be {s.vmid}")
    size = row.get("size", row.get("approximate-size"))
    if size is None and s.format != "subvol":
        s.fail("neither size nor approximate-size is given")
    if "size" in row and s.has("volume_size_info") and s.format != "subvol":
        told = s.ask("volume_size_info", volid, 5)
        if int(told) != int(row["size"]):
            s.fail(f"the list says {size} bytes, volume_size_info {told}")
    if size is not None and int(size) < 4096 << 10 and s.format != "subvol":
        s.fail(f"4 MiB were allocated, the list says {size} bytes")
    ctime = row.get("ctime")
    if ctime is not None and not isinstance(ctime, int):
        s.fail(f"ctime must be seconds since 1970, not {ctime!r}")


def lists_are_fresh(s: Subject) -> None:
    """C-049, C-051: what callers do to a list or cache stays with them."""
    volid = s.volume()
    answer = s.run("$class->list_images, three times, the first list spoiled", LIST_TWICE,
                   STOREID, s.vmid)  # fmt: skip
    if answer.error is not None:
        s.fail("list_images failed")
    count, second, third, foreign, activated = answer.value
    for rows in (second, third):
        if count != 1 or [row["volid"] for row in rows] != [volid]:
            s.fail("a list that its caller changed comes back changed")
    if foreign != {"deep": [1]} or activated != {"other": 1}:
        s.fail("list_images changes keys of the cache that belong to others")


def nothing_foreign(s: Subject) -> None:
    """C-050: snapshots and other storages' volumes."""
    volid = s.volume()
    if s.has("volume_snapshot") and s.feature("snapshot", volid):
        s.ask("volume_snapshot", volid, "check1")
        found = [row["volid"] for row in _rows(s, s.vmid)]
        s.attempt("volume_snapshot_delete", volid, "check1")
        if found != [volid]:
            s.fail(f"a snapshot shows up in the list: {found}")
    for row in _rows(s):
        if not str(row["volid"]).startswith(f"{STOREID}:"):
            s.fail(f"'{row['volid']}' belongs to another storage")
        if s.attempt("parse_volname", row["volid"], context="list").error is not None:
            s.fail(f"'{row['volid']}' is listed, and is no volume name")
    if s.second is None:
        return
    other = s.volume(storeid=SECOND)
    s.volume(storeid=SECOND)
    if len(_rows(s, s.vmid)) != 1:
        s.fail(f"volumes of storage '{SECOND}', such as '{other}', appear in '{STOREID}'")


def by_content(s: Subject) -> None:
    """C-052: what was asked for, each entry with its content."""
    volid = s.volume()
    content = [kind for kind in s.manifest["content"][0] if kind != "none"]
    for kind in content:
        for row in s.method("list_volumes", vmid=None, content_types=[kind]):
            if row.get("content") != kind:
                s.fail(f"asked for '{kind}', got '{row.get('volid')}' of {row.get('content')!r}")
    if "images" not in content:
        raise NotApplicable("the storage holds no images")
    found = [row["volid"] for row in s.ask("volume_list", STOREID, s.vmid, "images")]
    if volid not in found:
        s.fail(f"'{volid}' is an image, and is not listed as one: {found}")
    for kind in ("iso", "vztmpl", "backup", "snippets"):
        if kind not in content:
            rows = s.method("list_volumes", vmid=None, content_types=[kind])
            if rows:
                s.fail(f"content type '{kind}' is not supported, and {rows} are listed")


CHECKS: Final = {
    "C-046": of_one_guest,
    "C-047": of_given_volumes,
    "C-048": rows_are_complete,
    "C-049": lists_are_fresh,
    "C-050": nothing_foreign,
    "C-051": lists_are_fresh,
    "C-052": by_content,
}
