# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Name patterns read by Perl as by Python, however their groups are written."""

from __future__ import annotations

import re

import pytest

from bridge_util import Node
from probe_util import enable_both
from pve_pybridge.names import BLOCK_NAMES, DIRECTORY_NAMES, NamePattern, parse_volname

TRICKY = [
    ("(?P<name>a)", "{format}", ["a"]),
    ("(x|y)-(?P<name>(?:a|b)+)-(?P<vmid>[0-9]+)", "raw", ["x-ab-7", "y-b-100"]),
    (r"\((?P<name>[^()]+)\)-(?P<vmid>[0-9]+)", "raw", ["(a)-5"]),
    (r"[](\]]+(?P<vmid>[0-9]+)(?P<name>[^(]+)", "raw", ["](7x"]),
    (r"(?P<base>base-)?(a)\2(?P<name>b)", "raw", ["aab", "base-aab"]),
    (r"(?#not (a group)(?P<name>a)", "raw", ["a"]),
    (r"(x)?(?(1)(?P<vmid>[0-9]+)|n)(?P<name>a)", "raw", ["x7a", "na"]),
    (r"(?<=)(?!z)(?P<name>a)(?:\.(?P<format>raw|qcow2))?", "z{format}{format}", ["a", "a.raw"]),
    (r"(?P<basevmid>[0-9]+)/(?P<basename>(b+))/(?P<name>a)", "raw", ["7/bb/a"]),
]
TABLES = [
    *("100/vm-100-disk-0.raw", "100/base-1.qcow2", "7/base-7.raw/8/vm-8.qcow2", "iso/a.ISO"),
    *("backup/vzdump-qemu-5-x.vma.zst", "import/a.ova/b.vmdk", "vm-1-a", "base-1-a/vm-2-b"),
]
CASES = [
    *(((NamePattern("images", text, format_),), name) for text, format_, good in TRICKY
      for name in good),
    *((DIRECTORY_NAMES, name) for name in TABLES[:6]),
    *((BLOCK_NAMES, name) for name in TABLES[6:]),
]  # fmt: skip
PARSE = """
    use Scalar::Util qw(tainted);
    require PVE::Storage::PyBridge::Names;
    my ($names, $tainted) = (shift(@ARGS), substr($ENV{PATH}, 0, 0));
    my $parse = PVE::Storage::PyBridge::Names::parser({ type => 'x', names => $names });
    my @found;
    for my $name (map { ($_, $_) } @ARGS) { # the second answer is the kept one
        my @answer = $parse->($name . $tainted);
        die "tainted\\n" if grep { defined($_) && tainted($_) } @answer;
        push @found, \\@answer;
    }
    return \\@found;
"""


@pytest.mark.contract("C-015", "C-019")
def test_groups_as_python_numbers_them(node: Node) -> None:
    enable_both(node)
    with node.session() as perl:
        for patterns, name in CASES:
            wanted = parse_volname(patterns, name)
            data = [{"vtype": p.vtype, "pattern": p.pattern, "format": p.format} for p in patterns]
            answers = perl.run(PARSE, data, name).ok()
            assert answers[0] == answers[1]
            vtype, short, vmid, base_name, base_vmid, is_base, format_ = answers[0]
            assert (vtype, short, base_name, bool(is_base), format_) == (
                *(wanted.vtype, wanted.name, wanted.base_name, wanted.is_base, wanted.format),
            ), patterns
            numbers = [None if text is None else int(text) for text in (vmid, base_vmid)]
            assert numbers == [wanted.vmid, wanted.base_vmid], (patterns, name)


@pytest.mark.contract("C-042")
def test_a_name_that_fits_nothing_after_one_that_does(node: Node) -> None:
    enable_both(node)
    with node.session() as perl:
        answer = perl.run("""
            my $class = 'PVE::Storage::Custom::PyBridge::probe';
            my @good = $class->parse_volname('vm-100-disk-0');
            my $parse = sub { my @x = $class->parse_volname($_[0]); return 'parsed'; };
            my @bad = map { eval { $parse->($_) } // $@ } '', undef, 'x';
            return [@bad, scalar(my @again = $class->parse_volname('vm-100-disk-0'))];
        """)
        *errors, count = answer.ok()
        assert [re.sub("'.*'", "", text) for text in errors] == [
            "unable to parse probe volume name \n"
        ] * 3
        assert count == 7
