# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The Python side of docs/from-perl.md is a storage, and its Perl side is Perl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bridge_util import ROOT, Node
from pve_pybridge.methods import METHODS, NOT_STORAGE_METHODS
from test_new import tool

PAGE = (ROOT / "docs/from-perl.md").read_text("utf-8")
ARRAY = '''#!{python}
"""The vendor's tool: volumes in a JSON file, devices that are files."""
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
assert words[0] == "--pool"
pool = Path({base!r}, words[1])
verb, *rest = words[2:]
state = json.loads(pool.read_text()) if pool.exists() else {{}}
if verb == "df":
    print(json.dumps({{"total": 1 << 40, "free": 1 << 39}}))
elif verb == "list":
    print(json.dumps([{{"name": name, "size": one["size"]}} for name, one in state.items()]))
elif verb == "attached":
    print(json.dumps(state.get(rest[0], {{}}).get("mode")))
else:
    if verb != "create" and rest[0] not in state:
        sys.exit(f"no volume {{rest[0]}}")
    if verb == "create":
        state[rest[0]] = {{"size": int(rest[1])}}
    elif verb == "delete":
        del state[rest[0]]
    elif verb == "grow":
        state[rest[0]]["size"] = int(rest[1])
    elif verb == "attach":
        state[rest[0]]["mode"] = rest[2]
    elif verb == "detach":
        del state[rest[0]]["mode"]
    pool.write_text(json.dumps(state))
'''


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def plugin(node: Node) -> Path:
    """The page's Python, with a tool that stands in for the vendor's."""
    tools = node.base / "tools"
    tools.mkdir()
    script = tools / "array"
    script.write_text(ARRAY.format(python=sys.executable, base=str(node.base)))
    script.chmod(0o755)
    head, *methods = blocks("python")  # the page's later blocks are methods of the class
    source = head + "".join("\n" + textwrap.indent(one, "    ") for one in methods)
    source = source.replace('["array",', f'["{script}",')
    file = node.base / "array.py"
    file.write_text(source)
    return file


def test_the_python_side_is_a_storage(node: Node, plugin: Path) -> None:
    node.serve(plugin)
    node.add("ar", "array", array_pool="pool1")
    result = node.perl(
        """
        my $cfg = PVE::Storage::config();
        my $volid = PVE::Storage::vdisk_alloc($cfg, 'ar', 100, 'raw', undef, 1500);
        my ($row) = PVE::Storage::vdisk_list($cfg, 'ar', 100)->{ar}->@*;
        my $path = PVE::Storage::path($cfg, $volid);
        PVE::Storage::activate_volumes($cfg, [$volid]);
        my $hints = { 'guest-is-windows' => 1, 'plugin-may-deactivate-volume' => 1 };
        $hints = undef if PVE::Storage::APIVER() < 13;
        PVE::Storage::activate_volumes($cfg, [$volid], undef, $hints);
        PVE::Storage::volume_resize($cfg, $volid, 5 << 20, 0);
        my $size = PVE::Storage::volume_size_info($cfg, $volid, 5);
        return [$volid, $row->{size}, $path, $size,
            PVE::Storage::storage_info($cfg)->{ar}->{total}];
        """
    )
    path = "/dev/array/vm-100-disk-0"
    assert result.ok() == ["ar:vm-100-disk-0", 2 << 20, path, 5 << 20, 1 << 40]
    state = json.loads((node.base / "pool1").read_text())
    hinted = node.perl("PVE::Storage::APIVER() >= 13 ? 1 : 0").ok()
    assert state["vm-100-disk-0"]["mode"] == ("windows" if hinted else "safe")
    code = """
        my $cfg = PVE::Storage::config();
        PVE::Storage::deactivate_volumes($cfg, ['ar:vm-100-disk-0']);
        PVE::Storage::vdisk_free($cfg, 'ar:vm-100-disk-0');
    """
    assert node.perl(code).error is None
    assert json.loads((node.base / "pool1").read_text()) == {}
    answer = node.perl("PVE::Storage::activate_volumes(PVE::Storage::config(), ['ar:vm-9-disk-0'])")
    assert "failed with exit code 1: no volume vm-9-disk-0" in (answer.error or "")


def test_the_python_side_is_typed(node: Node, plugin: Path) -> None:
    env = {**os.environ, "MYPYPATH": str(ROOT / "bridge")}
    done = subprocess.run(
        [*tool("mypy"), "--strict", str(plugin)],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "Success: no issues found in 1 source file\n"


def test_the_perl_side_is_perl(tmp_path: Path) -> None:
    head = "use v5.36;\nuse JSON;\nsub run_command;\npackage Array;\n"
    file = tmp_path / "Array.pm"
    file.write_text(head + "\n".join(blocks("perl")) + "\n1;\n")
    done = subprocess.run(
        ["perl", "-c", str(file)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == f"{file} syntax OK\n"


def test_every_method_named_exists() -> None:
    """What the page says that PVE calls is in the method table, or PVE's own."""
    known = {*METHODS, *(name for names in NOT_STORAGE_METHODS.values() for name in names)}
    subs = set(re.findall(r"^sub (\w+)", PAGE, re.M))
    assert subs - known == set()
