# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What happens when a PVE process loads the shim: no server, no surprises, one line per problem."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from bridge_util import GENUINE, ROOT, Node
from probe_util import enable_both
from pve_pybridge.storagecfg import parse
from pve_pybridge.testing.perl import PerlSession, perl_include_dirs

TYPES = "return [grep { /^(?:probe|bare|other)$/ } PVE::Storage::Plugin->lookup_types()->@*];"
PACKAGE = "PVE::Storage::Custom::PyBridge"
NO_SOCKET = """
    BEGIN {
        no warnings 'once';
        *CORE::GLOBAL::socket = sub (*$$$) { $main::sockets++; die "no sockets here\\n" };
        *CORE::GLOBAL::connect = sub (*$) { $main::sockets++; die "no sockets here\\n" };
    }
    require PVE::Storage;
"""
only_standin = pytest.mark.skipif(GENUINE, reason="a genuine host has one APIVER only")


@pytest.fixture
def enabled(node: Node) -> Node:
    """Both test plugins enabled, no server running."""
    enable_both(node)
    return node


def loaded(session: PerlSession) -> tuple[list[str], list[str]]:
    """The registered ones of our types, and what loading said on STDERR."""
    assert session.startup_stdout == ""
    return session.run(TYPES).ok(), session.startup_stderr.splitlines()


# --- without a server --------------------------------------------------------------------------


@pytest.mark.contract("C-001", "C-003", "C-015")
def test_loading_needs_no_server_and_no_socket(enabled: Node) -> None:
    with enabled.session(preload=NO_SOCKET) as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        answer = perl.run("""
            my @seven = PVE::Storage::Custom::PyBridge::probe->parse_volname('vm-100-disk-0');
            my $modules = join(' ', grep { m!MessagePack|FDPass|PyBridge/(?:Client|Codec)! } %INC);
            return [$main::sockets // 0, $modules, \\@seven];
        """)
        assert answer.ok() == [0, "", ["images", "vm-100-disk-0", "100", None, None, None, "raw"]]


AT_START = {"Manifest", "Guard", "Type", "Method", "Older", "OldHost", "Flaw"}
LATER = {file.stem for file in (ROOT / "perl/PVE/Storage/PyBridge").glob("*.pm")} - AT_START
FILES = "return [map { m!Storage/PyBridge/(\\w+)! && defined($INC{$_}) ? $1 : () } keys %INC]"


@pytest.mark.contract("C-003")
@pytest.mark.parametrize(
    ("program", "expected"),
    [("pvedaemon", LATER), ("pve-ha-lrm", LATER), ("pveproxy", set()), ("qm", set())],
)
def test_a_daemon_loads_what_its_tasks_need(
    enabled: Node, program: str, expected: set[str]
) -> None:
    """At once: its forks don't load it each, nor later from a release that came meanwhile."""
    with enabled.session(preload=f"BEGIN {{ $0 = '/usr/bin/{program}' }} {NO_SOCKET}") as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        assert {*perl.run(FILES).ok()} - AT_START == expected
        assert perl.run("return $main::sockets // 0").ok() == 0


def test_a_daemon_without_types_loads_nothing_more(node: Node) -> None:
    with node.session(preload=f"BEGIN {{ $0 = '/usr/bin/pvedaemon' }} {NO_SOCKET}") as perl:
        assert loaded(perl) == ([], [])
        assert {*perl.run(FILES).ok()} <= AT_START


def test_a_daemon_without_msgpack_starts(enabled: Node) -> None:
    """Whoever calls then is told, as everywhere else."""
    missing = """
        BEGIN {
            $0 = '/usr/bin/pvedaemon';
            unshift @INC, sub { die "no msgpack here\n" if $_[1] =~ /MessagePack/; return };
        }
        use PVE::Storage;
    """
    with enabled.session(preload=missing) as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        for _ in range(2):
            answer = perl.run("PVE::Storage::Custom::PyBridge::probe->get_identity({}, 'p1')")
            assert (answer.error or "").startswith("no msgpack here")


@pytest.mark.contract("C-003")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_loading_as_somebody_else() -> None:
    for place in (*perl_include_dirs(), ROOT):
        if not all(parent.stat().st_mode & 1 for parent in (place, *place.parents)):
            pytest.skip(f"others may not enter {place}")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        with Node(base) as node:
            enable_both(node)
            secret = node.manifests / "secret.json"
            secret.write_text("{}")
            secret.chmod(0o600)
            become = "BEGIN { $( = 65534; $) = '65534 65534'; $< = $> = 65534; }"
            with node.session(preload=become + NO_SOCKET) as perl:
                assert perl.run("return $> + 0").ok() == 65534
                types, said = loaded(perl)
                assert types == ["bare", "probe"]
                reason = "can't read it: Permission denied"
                assert said == [f"pve-pybridge: manifest {secret} skipped: {reason}"]
                assert perl.run("return $main::sockets // 0").ok() == 0


@pytest.mark.contract("C-002")
@only_standin
@pytest.mark.parametrize("apiver", range(10, 16))
def test_api_is_the_hosts(enabled: Node, apiver: int) -> None:
    with enabled.session(env={"PVE_STANDIN_APIVER": str(apiver)}) as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        classes = [PACKAGE, f"{PACKAGE}::probe", f"{PACKAGE}::bare"]
        assert perl.run("return [map { $_->api() } @ARGS]", *classes).ok() == [apiver] * 3


@pytest.mark.contract("C-002")
def test_api_on_this_host(enabled: Node) -> None:
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        host, ours = perl.run(f"return [PVE::Storage::APIVER(), {PACKAGE}->api()]").ok()
        assert ours == min(host, 15)


def test_api_of_a_newer_host(enabled: Node) -> None:
    with enabled.session(preload="BEGIN { package PVE::Storage; sub APIVER { 16 } }") as perl:
        answer = perl.run(f"require PVE::Storage::Custom::PyBridge; return {PACKAGE}->api()")
        assert answer.ok() == 15


@pytest.mark.contract("C-009")
def test_static_answers_are_equal_and_fresh(enabled: Node) -> None:
    with enabled.session() as perl:
        answer = perl.run(f"""
            my @found;
            for my $round (1, 2) {{
                for my $class (qw({PACKAGE}::probe {PACKAGE}::bare)) {{
                    for my $name (qw(plugindata properties options type api)) {{
                        my $value = $class->$name();
                        push @found, JSON->new->canonical->allow_nonref->encode($value);
                        next if !ref($value);
                        $_->{{spoiled}} = 1 for grep {{ ref($_) eq 'HASH' }} values(%$value);
                        $_->[0]->{{spoiled}} = 1 for grep {{ ref($_) eq 'ARRAY' }} values(%$value);
                        $value->{{spoiled}} = 1;
                    }}
                }}
            }}
            return \\@found;
        """)
        found = answer.ok()
        assert found[:10] == found[10:]
        data = json.loads(found[0])
        assert data["content"][0].keys() == {"images", "rootdir", "backup", "import", "none"}
        assert data["content"][1] == {"images": 1}
        assert data["format"] == [{"raw": 1, "qcow2": 1}, "raw"]
        assert data["sensitive-properties"] == {"password": 1, "probe-token": 1}


@pytest.mark.contract("C-012")
def test_fork_then_require(enabled: Node) -> None:
    with enabled.session(preload="1") as perl:
        answer = perl.run("""
            my $types = sub { join(' ', sort(PVE::Storage::Plugin->lookup_types()->@*)) };
            pipe(my $in, my $out);
            my $pid = fork();
            if (!$pid) {
                require PVE::Storage;
                require PVE::Storage::Custom::PyBridge;
                syswrite($out, $types->());
                require POSIX;
                POSIX::_exit(0);
            }
            close($out);
            my $theirs = <$in>;
            waitpid($pid, 0);
            require PVE::Storage;
            require PVE::Storage::Custom::PyBridge;
            return [$theirs, $types->()];
        """)
        theirs, ours = answer.ok()
        assert theirs == ours
        assert "bare" in ours.split()
        assert answer.stderr == ""


# --- storage.cfg -------------------------------------------------------------------------------

READ = "my $ids = PVE::Storage::config()->{ids}; return [map { $ids->{$_} } @ARGS];"


@pytest.mark.contract("C-013")
def test_round_trip_of_storage_cfg(enabled: Node) -> None:
    enabled.add("p1", "probe", content="backup,images", probe_mode="a b", probe_limit=5, nodes="n1")
    enabled.add("b1", "bare")
    before = enabled.perl(READ, "p1", "b1").ok()
    assert before == [
        {
            "type": "probe",
            "content": {"backup": 1, "images": 1},
            "nodes": {"n1": 1},
            "probe-mode": "a b",
            "probe-limit": 5,
        },
        {"type": "bare", "content": {"images": 1, "rootdir": 1}, "shared": 1},
    ]
    done = enabled.perl("""
        PVE::Storage::lock_storage_config(
            sub { PVE::Storage::write_config(PVE::Storage::config()) }, 'write');
        return undef;
    """)
    assert (done.ok(), done.stderr) == (None, "")
    assert enabled.perl(READ, "p1", "b1").ok() == before


ODD_LINES = """
probe: one
	probe-limit 5
	probe-limit 6
	nonsense 1
not indented

	probe-mode stray

other: two
	content images

probe: one
	content iso

PROBE: three
bare: swallowed
	content images
0
bare: four
# comment
	content rootdir

bare: x
	content images
"""


@pytest.mark.contract("C-013")
def test_odd_lines_of_storage_cfg(enabled: Node) -> None:
    """The same for both: what PVE makes of a file that somebody edited by hand."""
    enabled.storage_cfg(ODD_LINES.removeprefix("\n"))
    answer = enabled.perl("""
        my $cfg = PVE::Storage::config();
        my @texts = map { "$_->{context}: $_->{section}: $_->{key}: $_->{err}" } $cfg->{errors}->@*;
        delete $cfg->{ids}->{local};
        return [$cfg->{ids}, $cfg->{order}, @texts];
    """)
    assert answer.ok() == [
        {
            "one": {"type": "probe", "content": {}},
            "three": {"type": "probe", "content": {"images": 1}},
            "four": {"type": "bare", "content": {"rootdir": 1}, "shared": 1},
        },
        {"one": 2, "three": 3, "four": 4},
        "file storage.cfg line 3: one: probe-limit: duplicate attribute\n",
        "file storage.cfg line 4: one: nonsense: unknown property type\n",
    ]
    read_by_python = [f"{section.type} {section.storeid}" for section in parse(ODD_LINES)]
    ours = ["probe one", "other two", "probe one", "probe three", "bare four", "bare x"]
    assert read_by_python == ours
    where = "file storage.cfg line"
    assert answer.stderr.splitlines() == [
        f"{where} 3 (section 'one') - unable to parse value of 'probe-limit': duplicate attribute",
        f"{where} 4 (section 'one') - unable to parse value of 'nonsense': unknown property type",
        f"{where} 5 (section 'one') - ignore config line: not indented",
        f"{where} 7 - ignore config line: \tprobe-mode stray",
        f"{where} 9 (skip section 'two'): unsupported type 'other'",
        "storage does not support content type 'iso'",
        f"{where} 16 (section 'three') - ignore config line: bare: swallowed",
        f"{where} 23 (skip section 'x'): storage ID 'x' cannot be shorter than 2 characters",
    ]


@pytest.mark.contract("C-011")
def test_section_of_another_release(enabled: Node) -> None:
    enabled.add("p1", "probe", content="iso", probe_future=1, probe_limit=7)
    answer = enabled.perl(READ, "p1")
    assert answer.ok() == [{"type": "probe", "content": {}, "probe-limit": 7}]
    assert "content type 'iso'" in answer.stderr
    assert "probe-future" in answer.stderr


@only_standin
@pytest.mark.contract("C-098")
@pytest.mark.parametrize(("apiver", "offered"), [(10, False), (11, True)])
def test_secrets_that_an_old_host_would_write_down(
    enabled: Node, apiver: int, offered: bool
) -> None:
    with enabled.session(env={"PVE_STANDIN_APIVER": str(apiver)}) as perl:
        names = perl.run(f"""
            my $class = '{PACKAGE}::probe';
            return [map {{ sort keys %$_ }} $class->properties(), $class->options(),
                PVE::Storage::Plugin->createSchema()->{{properties}}];
        """).ok()
        assert names.count("probe-token") == (3 if offered else 0)
        assert names.count("probe-mode") == 3
