# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The same calls on PVE's own ``dir`` and on ``pydir``: names, abilities, files and backups."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge_util import GENUINE
from pair_util import Pair, listing, on_both
from pydir_util import ALL, MIB

pytestmark = pytest.mark.skipif(not GENUINE, reason="needs genuine PVE modules")


# --- names -------------------------------------------------------------------------------------

PARTS = [
    *("vm-100-disk-0", "base-100-disk-0", "subvol-100-disk-0", "vm-100-cloudinit", "x", ".x", "-"),
    *("snap-a-vm-100-disk-0", "vm-100-state-a.b", "vm--disk-0", "base-x", "a b", "ä", "VM-1-x", ""),
]
SUFFIXES = ["raw", "qcow2", "vmdk", "subvol", "RAW", "qcow", "iso", ""]
FILES = [
    *(
        "iso/a.iso",
        "iso/a.ISO",
        "iso/a.img",
        "iso/a b.iso",
        "iso/.iso",
        "iso/a.iso.gz",
        "iso/ä.iso",
    ),
    *("iso/a.txt", "iso/", "iso/x/a.iso", "iso/../a.iso", "iso/a.Img"),
    *("vztmpl/a.tar", "vztmpl/a.tar.gz", "vztmpl/a.tar.xz", "vztmpl/a.tar.zst", "vztmpl/a.TAR.GZ"),
    *("vztmpl/a.tar.bz2", "vztmpl/a.tgz", "vztmpl/a.tar.lzo", "vztmpl/.tar", "vztmpl/a"),
    *("backup/vzdump-qemu-100-2024_01_01-00_00_00.vma", "backup/vzdump-lxc-7-x.tar.zst"),
    *("backup/vzdump-openvz-1-x.tgz", "backup/vzdump-qemu-x.vma.lzo", "backup/x.vma.zst"),
    *("backup/vzdump-qemu-100-.vma", "backup/x.tar.bz2", "backup/x.zip", "backup/.vma", "backup/"),
    *("backup/vzdump-foo-100-x.vma.gz", "backup/a/b.vma", "backup/x.VMA", "backup/x.tar.xz"),
    *("snippets/a", "snippets/a b", "snippets/.a", "snippets/ä", "snippets/", "snippets/a/b"),
    *(
        "import/a.ova",
        "import/a.ovf",
        "import/a.qcow2",
        "import/a.raw",
        "import/a.vmdk",
        "import/a",
    ),
    *("import/a b.ova", "import/ä.ova", "import/a.ova/b.vmdk", "import/a.ova/b c.qcow2"),
    *("import/a.ova/b.raw", "import/a.ova/b.ovf", "import/a.OVA", "import/a.ova/", "import/.ova"),
    *("import/a.ova/x/b.vmdk", "import/a:b.ova", "images/x.raw", "rootdir/x", "private/100", "a"),
    *(
        "",
        "/",
        "..",
        "100",
        "100/",
        "/100/x.raw",
        "100//x.raw",
        "x/100/a.raw",
        "1a/x.raw",
        "100/ x",
    ),
    *(
        "0/x.raw",
        "100/a/b.raw",
        "100/a.raw/101",
        "100/a.raw/101/",
        "100/a.raw/x/b.raw",
    ),
]
IMAGES = [f"{name}.{suffix}" for name in PARTS for suffix in SUFFIXES]
NAMES = [
    *FILES,
    *(f"100/{name}" for name in IMAGES),
    *(f"100/base-100-disk-0.raw/101/{name}" for name in IMAGES),
    *(f"100/{name}/101/vm-101-disk-0.qcow2" for name in IMAGES),
]
STRICTER = {
    "snippets/..": "would be the parent directory",
    "snippets/.": "would be the directory itself",
    "007/x.raw": "would be another name of 7/x.raw, in a directory of its own",
}
"""Names that only ``pydir`` refuses, and why."""

PARSE = """
    my ($type, $names) = @ARGS;
    my $plugin = PVE::Storage::Plugin->lookup($type);
    return [map { my $name = $_; my @r = eval { $plugin->parse_volname($name) }; [@r] } @$names];
"""


@pytest.mark.contract("C-042", "C-043")
def test_every_name_means_the_same(pair: Pair) -> None:
    names = [*NAMES, *STRICTER]
    theirs, ours = (pair.dir.node.perl(PARSE, type_, names).ok() for type_ in ("dir", "pydir"))
    different = {}
    for name, their, our in zip(names, theirs, ours, strict=True):
        if truth(their) != truth(our) and name not in STRICTER:
            different[name] = (their, our)
    assert different == {}
    assert [our for name, our in zip(names, ours, strict=True) if name in STRICTER] == [[]] * 3


def truth(values: Sequence[Any]) -> list[Any]:
    """Seven values; of index 5 callers only ask whether it is true."""
    return [
        bool(v) if index == 5 else None if v is None else str(v) for index, v in enumerate(values)
    ]


def test_paths(pair: Pair) -> None:
    for name in NAMES:
        if name == "":  # no volume ID
            continue
        for snap in (None, "a"):
            pair.same("path", f":{name}", snap, context="list", text=False)


# --- what volumes can do -----------------------------------------------------------------------

VOLUMES = [
    *(f"100/{kind}-100-disk-0.{f}" for kind in ("vm", "base") for f in SUFFIXES[:4]),
    "100/base-100-disk-0.raw/101/vm-101-disk-0.qcow2",
    "100/base-100-disk-0.raw/101/base-101-disk-0.qcow2",
    *("iso/a.iso", "vztmpl/a.tar", "backup/a.vma", "snippets/a", "import/a.qcow2", "import/a.ova"),
    *("import/a.ova/b.qcow2", "import/a.ovf"),
]


def test_features(pair_of_either: Pair) -> None:
    features = ["snapshot", "clone", "copy", "template", "sparseinit", "rename", "replicate", "x"]
    targets: list[Any] = [None, {}, {"valid_target_formats": ["raw"]}]
    targets += [{"valid_target_formats": ["qcow2"]}, {"valid_target_formats": ["raw", "qcow2"]}]
    code = """
        my ($volids, $features, $targets) = @ARGS;
        my $cfg = PVE::Storage::config();
        my %answer;
        for my $volid (@$volids) { for my $feature (@$features) { for my $snap (undef, '', 's') {
            for my $running (0, 1) { for my $number (0 .. $#$targets) {
                my $name = $volid =~ s/^[^:]*//r;
                my $key = join(' ', $name, $feature, $snap // '-', $running, $number);
                $answer{$key} = eval { PVE::Storage::volume_has_feature(
                    $cfg, $feature, $volid, $snap, $running, $targets->[$number]) } ? 1 : 0;
            } }
        } } }
        return \\%answer;
    """
    answers = [
        store.node.perl(code, [store.volid(v) for v in VOLUMES], features, targets).ok()
        for store in pair_of_either.both
    ]
    assert len(answers[0]) == len(VOLUMES) * 8 * 3 * 2 * 5
    assert answers[0] == answers[1]


@pytest.mark.parametrize("direction", ["export", "import"])
def test_transfer_formats(pair: Pair, direction: str) -> None:
    for volname in VOLUMES:
        for snapshot in (None, "s"):
            for base in (None, "b"):
                for with_snapshots in (0, 1):
                    args = (f":{volname}", snapshot, base, with_snapshots)
                    pair.same(f"volume_{direction}_formats", *args, context="list", text=False)


def test_static_answers(pair_of_either: Pair) -> None:
    for volname in VOLUMES[:10]:
        pair_of_either.same("volume_snapshot_needs_fsfreeze", f":{volname}")
        pair_of_either.same("volume_qemu_snapshot_method", f":{volname}")
    for format_ in ("raw", "qcow2", "subvol"):
        pair_of_either.same("storage_can_replicate", "<id>", format_)
    pair_of_either.same("storage_default_format", "<id>")
    rows = pair_of_either.dir("storage_info", None, 1)
    theirs, ours = (rows[store.id] for store in pair_of_either.both)
    for row in (theirs, ours):
        row["content"] = set(row["content"].split(","))
    changing = {"type", "used", "avail", "used_fraction"}
    assert {k: v for k, v in ours.items() if k not in changing} == {
        k: v for k, v in theirs.items() if k not in changing
    }
    assert abs(ours["avail"] - theirs["avail"]) < 256 * MIB


# --- files and backups -------------------------------------------------------------------------


def fill(root: Path) -> None:
    """Files of every content type, and some that are of none."""
    places = {"iso": "template/iso", "vztmpl": "template/cache", "backup": "dump"}
    for name in FILES:
        kind, _, file = name.partition("/")
        if kind in ("iso", "vztmpl", "backup", "snippets", "import") and file and "/" not in file:
            (root / places.get(kind, kind) / file).write_bytes(b"x" * len(file))
    for name in ("vzdump-qemu-100-2024_02_30-00_00_00.vma.zst", "vzdump-lxc-123-x-200-y.tar.gz"):
        (root / "dump" / name).write_bytes(b"x")
    (root / "dump/x.vma.zst.notes").write_bytes(b"first\nsecond")
    (root / "dump/x.tar.bz2.notes").write_bytes("ä ✓\n".encode())
    (root / "dump/vzdump-openvz-1-x.tgz.notes").write_bytes(b"\xff latin\n")
    (root / "dump/x.vma.zst.protected").touch()
    (root / "template/iso/directory.iso").mkdir()
    (root / "template/iso/dangling.iso").symlink_to("nowhere")


def test_listing_of_files(pair: Pair) -> None:
    for store in pair.both:
        store("activate_storage", store.id)
        fill(store.root)
    for content in ALL.split(","):
        listing(pair, "volume_list", "<id>", None, content)
        for vmid in (1, 100, 123, 200):
            listing(pair, "volume_list", "<id>", vmid, content)


def test_listing_of_broken_images(pair: Pair) -> None:
    pair.same("vdisk_alloc", "<id>", 100, "qcow2", None, 1024)

    def spoil(root: Path) -> None:
        images = root / "images/100"
        (images / "vm-100-broken.qcow2").write_bytes(b"x" * 2048)
        (images / "vm-100-empty.raw").touch()
        (images / "vm-100-odd.raw").write_bytes(b"x" * 1000)
        (images / "snap-a-vm-100-disk-0.qcow2").touch()
        (images / "dangling.raw").symlink_to("nowhere")
        (images / "text.txt").touch()

    on_both(pair, spoil)
    listing(pair, "vdisk_list", "<id>")
    # a directory is no raw image: dir lists it with size 0, pydir only warns
    on_both(pair, lambda root: (root / "images/100/directory.raw").mkdir())
    listed = [[f"{s.id}:100/directory.raw" in s.volids()] for s in pair.both]
    assert listed == [[True], [False]]


def test_attributes(pair: Pair) -> None:
    for store in pair.both:
        store("activate_storage", store.id)
        (store.root / "dump/x.vma").touch()
    pair.same("vdisk_alloc", "<id>", 100, "raw", None, 64)
    for volid in (":backup/x.vma", ":100/vm-100-disk-0.raw", ":iso/a.iso"):
        for attribute, value in [
            *(("notes", "ä\nb"), ("notes", ""), ("notes", None), ("protected", 1)),
            *(("protected", 1), ("protected", 0), ("protected", "0"), ("colour", "red")),
        ]:
            pair.same("update_volume_attribute", volid, attribute, value)
            for asked in ("notes", "protected", "colour"):
                pair.same("get_volume_attribute", volid, asked)
    pair.same("update_volume_attribute", ":backup/x.vma", "protected", 1)
    pair.same("vdisk_free", ":backup/x.vma")
    pair.same("update_volume_attribute", ":backup/x.vma", "protected", 0)
    pair.same("vdisk_free", ":backup/x.vma")


PRUNE = """
    my ($storeid, $given, $dryrun) = @ARGS;
    my $cfg = PVE::Storage::config();
    return [map {
        my ($keep, $vmid, $type) = @$_;
        my $list = PVE::Storage::prune_backups(
            $cfg, $storeid, $keep, $vmid, $type, $dryrun, sub { });
        +{ map { ($_->{volid} => $_) } @$list };
    } @$given];
"""


@pytest.mark.contract("C-100")
@pytest.mark.parametrize("seed", range(4))
def test_pruning(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    start = datetime(2023, 12, 24)
    names = ["vzdump-qemu-100-renamed.vma", "vzdump-lxc-x.tar.zst", "other.vma"]
    for _ in range(60):
        when = start + timedelta(hours=chance.choice([1, 5, 24]) * chance.randrange(600))
        kind, suffix = chance.choice([("qemu", "vma.zst"), ("lxc", "tar.gz")])
        vmid = chance.choice([100, 101])
        names.append(f"vzdump-{kind}-{vmid}-{when:%Y_%m_%d-%H_%M_%S}.{suffix}")
    protected = chance.sample(names, 8)
    for store in pair.both:
        store("activate_storage", store.id)
        for name in names:
            (store.root / "dump" / name).touch()
        for name in protected:
            (store.root / "dump" / f"{name}.protected").touch()
    rules = ["last", "hourly", "daily", "weekly", "monthly", "yearly"]
    given: list[Any] = [[{"keep-all": 1}, None, None], [{}, None, None]]
    for _ in range(60):
        chosen = chance.sample(rules, chance.randint(1, 4))
        keep = {f"keep-{rule}": chance.choice([0, 1, 2, 5]) for rule in chosen}
        given.append([keep, chance.choice([None, 100, 101]), chance.choice([None, "qemu", "lxc"])])
    for dryrun, rounds in ((1, given), (0, given[-1:])):
        theirs, ours = (
            pair.neutral(store, store.node.perl(PRUNE, store.id, rounds, dryrun).ok())
            for store in pair.both
        )
        for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            for row in (*their.values(), *our.values()):
                row["ctime"] = row["ctime"] if row["mark"] != "renamed" else 0
                row["vmid"] = int(row["vmid"]) if row.get("vmid") else None
            assert our == their, rounds[number]
        pair.files()


@pytest.mark.contract("C-091")
def test_streams(pair: Pair, tmp_path: Path) -> None:
    """The same bytes, and each takes what the other has sent.

    Without -T, as ``pvesm`` runs: ``dir`` hands the size from the stream to qemu-img as it is.
    Other formats: PVE's qemu-img is patched to write to pipes, the one here need not be.
    """
    send = """
        open(my $fh, '>', $ARGS[1]) or die "open: $!";
        PVE::Storage::volume_export(
            PVE::Storage::config(), $fh, $ARGS[0], 'raw+size', undef, undef, 0);
    """
    take = """
        open(my $fh, '<', $ARGS[1]) or die "open: $!";
        PVE::Storage::volume_import(
            PVE::Storage::config(), $fh, $ARGS[0], 'raw+size', undef, undef, 0, $ARGS[2]);
    """
    streams = [tmp_path / "theirs", tmp_path / "ours"]
    for stream, store in zip(streams, pair.both, strict=True):
        volid = store.alloc(100, "raw", 2048)
        store.write(volid, 5, "512k")
        store.node.perl(send, volid, stream, taint=False).ok()
    assert streams[0].read_bytes() == streams[1].read_bytes()
    results = []
    for stream, store in zip(reversed(streams), pair.both, strict=True):
        target = store.volid("101/vm-101-disk-0.raw")
        for rename in (0, 0, 1):
            done = store.node.perl(take, target, stream, rename, taint=False)
            results.append(pair.neutral(store, [done.value, done.error]))
        assert store.reads(target, 5, "512k")
    assert results[:3] == results[3:]
    assert results[0] == ["<id>:101/vm-101-disk-0.raw", None]
    assert results[2] == ["<id>:101/vm-101-disk-1.raw", None]
    pair.files()
