# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The documents are true: generated parts are current, every row and statement has its test."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from types import ModuleType

import pytest

from bridge_util import ROOT, Node
from pve_pybridge import methods
from pve_pybridge.cli import COMMANDS


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools/generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()
CLAIMS = GENERATOR.scan_tests(ROOT / "tests")
CONTRACT = (ROOT / "docs/contract.md").read_text("utf-8")
STATEMENTS = re.findall(r"^- (C-\d+) ", CONTRACT, re.M)
EXCUSED = tomllib.loads((ROOT / "docs/not-applicable.toml").read_text("utf-8"))


def test_generated_documents_are_current() -> None:
    stale = [
        path.name for path, text in GENERATOR.documents().items() if path.read_text("utf-8") != text
    ]
    assert stale == [], "run make docs"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_manual_page_is_well_formed() -> None:
    page = ROOT / "man/pve-pybridge.1"
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c", page],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    shown = re.sub(".\b", "", done.stdout)  # overstruck
    for command in COMMANDS:
        assert f"pve-pybridge {command}" in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pve-pybridge ", {*COMMANDS, "--version", "--log-level"}),
        ("pve-pybridge dis", {"disable"}),
        ("pve-pybridge disable ", {"tower", "my-type", "--force"}),
        ("pve-pybridge --log-level ", {"debug", "info", "warning", "error"}),
        ("pve-pybridge doctor --j", {"--json"}),
        ("pve-pybridge doctor secrets sta", {"status"}),
        ("pve-pybridge serve --type t", {"tower"}),
        ("pve-pybridge enable {base}/to", {"{base}/tower.py"}),
        ("pve-pybridge enable --re", {"--reload"}),
    ],
)
def test_completion(node: Node, line: str, offered: set[str]) -> None:
    """As bash asks for it."""
    for type_ in ("tower", "my-type"):
        (node.manifests / f"{type_}.json").touch()
    (node.base / "tower.py").touch()
    words = line.format(base=node.base).split(" ")
    script = f"""
        source {ROOT}/completions/pve-pybridge
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _pve_pybridge
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env={**os.environ, **node.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert {*done.stdout.split()} == {word.format(base=node.base) for word in offered}


def test_every_statement_is_claimed_or_excused() -> None:
    assert len(STATEMENTS) >= 104
    unproved = [c for c in STATEMENTS if c not in CLAIMS["contract"] and c not in EXCUSED]
    assert unproved == []


def test_no_claim_or_excuse_without_statement() -> None:
    assert set(CLAIMS["contract"]) - set(STATEMENTS) == set()
    assert set(EXCUSED) - set(STATEMENTS) == set()
    assert set(EXCUSED) & set(CLAIMS["contract"]) == set(), "proved and excused at once"


def test_every_method_has_its_proof() -> None:
    unproved = set(methods.METHODS) - set(CLAIMS["method"]) - methods.LOCAL
    assert unproved == set()
    assert set(CLAIMS["method"]) - set(methods.METHODS) == set()


def test_readme_shows_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for command in ("make demo", "make test"):
        assert f"    {command}\n" in readme


def test_links_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.method("path", "status", "list_images", "alloc_image", "activate_volume")
def test_plugin_of_the_readme_runs(node: Node) -> None:
    """The twenty lines of the README are a storage: added, filled, activated, listed."""
    readme = (ROOT / "README.md").read_text("utf-8")
    match = re.search(r"```python\n(# tower\.py.*?)```", readme, re.S)
    assert match is not None
    lines = [line for line in match[1].splitlines() if line.strip() and line[0] != "#"]
    assert len(lines) <= 28
    plugin = node.plugin("tower", match[1])
    node.serve(plugin)
    (node.base / "folder").mkdir()
    node.add("tw", "tower", tower_folder=node.base / "folder")
    result = node.perl(
        """
        my $cfg = PVE::Storage::config();
        my $volid = PVE::Storage::vdisk_alloc($cfg, 'tw', 100, 'raw', undef, 1024);
        PVE::Storage::activate_volumes($cfg, [$volid], undef, { 'guest-is-windows' => 1 });
        my ($row) = PVE::Storage::vdisk_list($cfg, 'tw', 100)->{tw}->@*;
        return [$volid, $row->{size}, PVE::Storage::storage_info($cfg)->{tw}->{active}];
        """
    )
    assert result.ok() == ["tw:vm-100-disk-0", 1 << 20, 1]
    hints = node.perl("PVE::Storage::Plugin->can('is_hint_supported') ? 1 : 0").ok()
    shown = "True" if hints else "None"
    assert result.stderr == f"activating vm-100-disk-0, Windows guest: {shown}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="attaching loop devices needs root")
def test_block_plugin_of_the_guide_runs(node: Node) -> None:
    """Under eighty lines, and still: allocated, tuned, grown, exported, imported, freed."""
    guide = (ROOT / "docs/plugin-author.md").read_text("utf-8")
    match = re.search(r"```python\n(# miniloop\.py.*?)```", guide, re.S)
    assert match is not None
    assert len(match[1].splitlines()) < 80
    node.serve(node.plugin("miniloop", match[1]))
    folder = node.base / "folder"
    folder.mkdir()
    node.add("ml", "miniloop", miniloop_folder=folder)
    result = node.perl(
        """
        my $cfg = PVE::Storage::config();
        my $volid = PVE::Storage::vdisk_alloc($cfg, 'ml', 100, 'raw', undef, 1024);
        my $hints = PVE::Storage::APIVER() >= 13 ? { 'guest-is-windows' => 1 } : undef;
        PVE::Storage::activate_volumes($cfg, [$volid], undef, $hints);
        my $path = PVE::Storage::path($cfg, $volid);
        my ($loop) = readlink($path) =~ m|(loop\\d+)$|;
        open(my $dio, '<', "/sys/block/$loop/loop/dio") or die "dio: $!";
        my $direct = <$dio> + 0;
        PVE::Storage::volume_resize($cfg, $volid, 2 << 20, 0);
        open(my $out, '+>', $ARGS[0]) or die "stream: $!";
        PVE::Storage::volume_export($cfg, $out, $volid, 'raw+size', undef, undef, 0);
        seek($out, 0, 0);
        my $copy = PVE::Storage::volume_import(
            $cfg, $out, 'ml:vm-101-disk-0', 'raw+size', undef, undef, 0, 0);
        my $size = PVE::Storage::volume_size_info($cfg, $copy, 5);
        PVE::Storage::deactivate_volumes($cfg, [$volid]);
        my $gone = -e $path ? 0 : 1;
        PVE::Storage::vdisk_free($cfg, $_) for $volid, $copy;
        return [$direct, $size, $gone, scalar(PVE::Storage::vdisk_list($cfg, 'ml')->{ml}->@*)];
        """,
        node.base / "stream",
    )
    hints = node.perl("PVE::Storage::APIVER() >= 13 ? 1 : 0").ok()
    assert result.ok() == [hints, 2 << 20, 1, 0]
