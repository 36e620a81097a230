# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Names, paths and listings of ``pydir``, asked through PVE::Storage (contract 9, D)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from pydir_util import PyDir, Store, make_mutable

BAD = [
    "",
    " ",
    "100",
    "100/",
    "100/.raw/x",
    "100/../101/vm-101-disk-0.raw",
    "../etc/passwd",
    "/etc/passwd",
    "100/vm 100.raw",
    "100/vm-100\n-disk-0.raw",
    "vm-100-disk-0",
    "100/vm-100-disk-0",
    "100/vm-100-disk-0.exe",
    "100/snap-a-vm-100-disk-0.qcow2",
    "abc/vm-100-disk-0.raw",
    "100/vm-100-disk-0.raw/101/",
    "iso/",
    "iso/a.txt",
    "iso/../a.iso",
    "iso/sub/a.iso",
    "vztmpl/a.zip",
    "backup/vzdump-qemu-100.vmx",
    "backup/../x.vma",
    "snippets/",
    "snippets/..",
    "snippets/a/b",
    "import/a.exe",
    "import/ä.ova",
    "import/a.ova/b.exe",
    "dump/vzdump-qemu-100-2024_01_01-00_00_00.vma",
]


@pytest.mark.contract("C-042")
@pytest.mark.parametrize("volname", BAD)
def test_a_name_that_is_none_dies(store: Store, volname: str) -> None:
    result = store.run("parse_volname", store.volid(volname), context="list")
    assert result.error is not None
    assert "unable to parse" in result.error


GOOD: dict[str, list[Any]] = {
    "100/vm-100-disk-0.raw": ["images", "vm-100-disk-0.raw", 100, None, None, None, "raw"],
    "100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2": [
        *("images", "vm-101-disk-0.qcow2", 101, "base-100-disk-0.qcow2", 100, None, "qcow2"),
    ],
    "iso/a b.ISO": ["iso", "a b.ISO", None, None, None, None, "raw"],
    "vztmpl/d.tar.zst": ["vztmpl", "d.tar.zst", None, None, None, None, "raw"],
    "backup/vzdump-qemu-100-x.vma": ["backup", "vzdump-qemu-100-x.vma", 100, *[None] * 3, "raw"],
    "snippets/ä.yaml": ["snippets", "ä.yaml", None, None, None, None, "raw"],
    "import/a.ova/b.vmdk": ["import", "a.ova/b.vmdk", None, None, None, None, "ova+vmdk"],
}


@pytest.mark.contract("C-042")
@pytest.mark.method("parse_volname")
@pytest.mark.parametrize("volname", GOOD)
def test_seven_values(store: Store, volname: str) -> None:
    before = len(store.node.servers[0].calls())
    assert store.parse(store.volid(volname)) == GOOD[volname]
    assert len(store.node.servers[0].calls()) == before, "names never cross the socket"


@pytest.mark.contract("C-043", "C-044", "C-045")
@pytest.mark.method("alloc_image", "create_base", "clone_image", "rename_volume")
def test_new_names_parse_and_tell_their_owner(store: Store) -> None:
    volid = store.alloc(100, "qcow2")
    assert store.parse(volid)[2] == 100
    moved = store("rename_volume", volid, 102, None)
    assert store.parse(moved)[2] == 102
    base = store("vdisk_create_base", moved)
    assert store.parse(base)[2] == 102
    assert store.parse(base)[5]
    assert store.run("volume_size_info", moved, 5).value is None
    assert "does not exist" in store.error("activate_volumes", [moved])
    clone = store("vdisk_clone", base, 103)
    assert store.parse(clone)[2:5] == [103, "base-102-disk-0.qcow2", 102]
    assert store.error("vdisk_free", base).endswith("is still in use by linked clones")
    store("vdisk_free", clone)
    store("vdisk_free", base)
    assert [name for name in store.images() if "/" in name] == []


@pytest.fixture(scope="module")
def filled(pydir_node: PyDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two guests' images, a clone, a snapshot chain's file and what doesn't belong there."""
    store = pydir_node.store(tmp_path_factory.mktemp("filled"))
    store.alloc(100, "raw", 4096)
    store.alloc(100, "qcow2", 2048)
    base = store("vdisk_create_base", store.alloc(101, "vmdk"))
    store("vdisk_clone", base, 102)
    store.alloc(103, "subvol", 0)
    strange = ("100/snap-a-vm-100-disk-1.qcow2", "100/notes.txt", "99999999/.x.raw", "lost/a.raw")
    for name in strange:
        file = store.root / "images" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    yield store
    make_mutable(store.root)


VOLUMES = {
    "100/vm-100-disk-0.raw": ("raw", 100, 4 << 20),
    "100/vm-100-disk-1.qcow2": ("qcow2", 100, 2 << 20),
    "101/base-101-disk-0.vmdk": ("vmdk", 101, 1 << 20),
    "101/base-101-disk-0.vmdk/102/vm-102-disk-0.qcow2": ("qcow2", 102, 1 << 20),
    "103/subvol-103-disk-0.subvol": ("subvol", 103, 0),
}


@pytest.mark.contract("C-048", "C-050")
@pytest.mark.method("list_images")
def test_list_says_what_there_is(filled: Store) -> None:
    found = {entry["volid"]: entry for entry in filled.entries()}
    assert found.keys() == {filled.volid(name) for name in VOLUMES}
    for name, (format_, vmid, size) in VOLUMES.items():
        entry = found[filled.volid(name)]
        assert (entry["format"], entry["size"]) == (format_, size)
        assert int(entry["vmid"]) == vmid
        assert entry["ctime"] > 1_600_000_000


@pytest.mark.contract("C-046", "C-047")
def test_list_of_one_guest_or_of_given_volumes(filled: Store) -> None:
    assert filled.volids(vmid=100) == [
        filled.volid("100/vm-100-disk-0.raw"),
        filled.volid("100/vm-100-disk-1.qcow2"),
    ]
    assert filled.volids(vmid=10) == []
    clone = filled.volid("101/base-101-disk-0.vmdk/102/vm-102-disk-0.qcow2")
    wanted = [clone, filled.volid("100/vm-100-disk-0.raw"), filled.volid("100/vm-100-disk-7.raw")]
    assert filled.volids(vmid=103, vollist=wanted) == sorted(wanted[:2])
    assert filled.volids(vollist=[filled.volid("102/vm-102-disk-0.qcow2")]) == []


@pytest.mark.contract("C-049", "C-051")
def test_list_is_new_each_time_and_leaves_the_cache_alone(filled: Store) -> None:
    result = filled.node.perl(
        """
        my ($storeid) = @ARGS;
        my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $storeid);
        my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
        my $cache = { activated => { other => 1 }, lvs => { vg => {} }, mountdata => 'foreign' };
        my $keys = join(' ', sort keys %$cache);
        my $first = $plugin->list_images($storeid, $scfg, 100, undef, undef);
        $_->{volid} = 'spoilt', $_->{extra} = [1] for @$first;
        push @$first, { volid => 'made up' };
        my $second = $plugin->list_images($storeid, $scfg, 100, undef, $cache);
        my ($vtype, @rest) = $plugin->parse_volname('100/vm-100-disk-0.raw');
        $vtype = $rest[0] = 'spoilt';
        my ($again) = $plugin->parse_volname('100/vm-100-disk-0.raw');
        return [$second, $keys eq join(' ', sort keys %$cache) ? 1 : 0, $again];
        """,
        filled.id,
    )
    second, untouched, vtype = result.ok()
    assert sorted(entry["volid"] for entry in second) == filled.volids(vmid=100)
    assert all("extra" not in entry for entry in second)
    assert (untouched, vtype) == (1, "images")


@pytest.mark.contract("C-050")
def test_storages_do_not_see_each_other(pydir: PyDir, filled: Store, tmp_path: Path) -> None:
    other = pydir.store(tmp_path / "other")
    mine = other.alloc(100)
    assert other.volids() == [mine]
    assert mine not in filled.volids()
    both = other("vdisk_list", None)
    assert {volid["volid"].split(":")[0] for volid in both[other.id]} == {other.id}


@pytest.mark.contract("C-052")
@pytest.mark.method("list_volumes")
def test_list_volumes_by_content(pydir: PyDir, tmp_path: Path) -> None:
    store = pydir.store(tmp_path / "store", content="images,rootdir,iso,backup,snippets")
    (store.node.etc / ".vmlist").write_text(
        json.dumps({"version": 1, "ids": {"200": {"type": "lxc", "node": "n", "version": 1}}})
    )
    pydir.refresh()
    disk, container = store.alloc(100), store.alloc(200)
    (store.root / "template/iso/a.iso").write_bytes(b"x" * 10)
    (store.root / "template/iso/a.txt").write_bytes(b"")
    backup = store.root / "dump/vzdump-qemu-100-2024_02_03-04_05_06.vma.zst"
    backup.write_bytes(b"b")
    Path(f"{backup}.notes").write_text("first ✓\nsecond")
    Path(f"{backup}.protected").touch()
    (store.root / "snippets/a.yaml").write_text("a: 1")

    def listed(content: str | None, vmid: int | None = None) -> dict[str, str]:
        found = store("volume_list", store.id, vmid, content)
        return {entry["volid"]: entry["content"] for entry in found}

    try:
        assert listed("images") == {disk: "images"}
        assert listed("rootdir") == {container: "rootdir"}
        assert listed("iso") == {store.volid("iso/a.iso"): "iso"}
        assert listed("snippets") == {store.volid("snippets/a.yaml"): "snippets"}
        assert listed("vztmpl") == {}
        assert listed("import") == {}
        volid = store.volid(f"backup/{backup.name}")
        assert listed("backup", 100) == {volid: "backup"}
        assert listed("backup", 101) == {}
        (entry,) = store("volume_list", store.id, None, "backup")
        assert (entry["notes"], entry["protected"], entry["format"]) == ("first ✓", 1, "vma.zst")
        assert (int(entry["vmid"]), entry["subtype"]) == (100, "qemu")
        everything = listed(None)
        assert everything.keys() >= {disk, container, volid, store.volid("iso/a.iso")}
        direct = store.node.perl(
            """
            my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $ARGS[0]);
            PVE::Storage::Plugin->lookup('pydir')->list_volumes($ARGS[0], $scfg, undef, ['vztmpl']);
            """,
            store.id,
        )
        assert direct.ok() == []
    finally:
        (store.node.etc / ".vmlist").unlink()


@pytest.mark.contract("C-053", "C-054")
@pytest.mark.method("path")
def test_path_owner_and_type(filled: Store, tmp_path: Path) -> None:
    expected: dict[str, list[Any]] = {
        "100/vm-100-disk-0.raw": ["images/100/vm-100-disk-0.raw", 100, "images"],
        "100/vm-100-disk-7.raw": ["images/100/vm-100-disk-7.raw", 100, "images"],
        "101/base-101-disk-0.vmdk/102/vm-102-disk-0.qcow2": [
            *("images/102/vm-102-disk-0.qcow2", 102, "images")
        ],
        "iso/a.iso": ["template/iso/a.iso", None, "iso"],
        "vztmpl/a.tar": ["template/cache/a.tar", None, "vztmpl"],
        "backup/x.vma": ["dump/x.vma", None, "backup"],
        "snippets/s": ["snippets/s", None, "snippets"],
        "import/x.ova": ["import/x.ova", None, "import"],
    }
    with Node(tmp_path) as second_node:
        PyDir(second_node)
        second_node.storage_cfg(filled.node.storage_cfg())
        there = Store(second_node, filled.id, filled.root)
        paths = []
        for name, (file, vmid, vtype) in expected.items():
            for it in (filled, there):
                path, owner, found = it("path", it.volid(name), context="list")
                assert path == f"{filled.root}/{file}"
                assert (None if owner is None else int(owner), found) == (vmid, vtype)
                assert it("path", it.volid(name)) == path
            paths.append(path)
    assert len(set(paths)) == len(expected)


@pytest.mark.method("path")
def test_paths_lead_back_to_volumes(pydir: PyDir, filled: Store) -> None:
    path = filled.root / "template/iso/a.iso"
    path.write_bytes(b"")
    assert filled("get_iso_dir", filled.id) == str(path.parent)
    if pydir.can("path_to_volume_id"):
        found = filled("path_to_volume_id", str(path), context="list")
        assert found == ["iso", filled.volid("iso/a.iso")]
