# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The inline Perl runner: what goes in and what comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pve_pybridge.testing import perl
from pve_pybridge.testing.perl import PerlCrashed, PerlResult, PerlSession, run_perl
from standin_util import isolate

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def session() -> Iterator[PerlSession]:
    with PerlSession(preload="use PVE::Exception;") as opened:
        yield opened


@pytest.mark.parametrize(
    ("context", "expected"), [("scalar", "scalar"), ("list", ["list"]), ("void", None)]
)
def test_context(session: PerlSession, context: Any, expected: object) -> None:
    code = """
        our $seen;
        sub ctx { $seen = wantarray ? 'list' : defined(wantarray) ? 'scalar' : 'void' }
        ctx()
    """
    assert session.run(code, context=context).ok() == expected
    assert session.run("our $seen").ok() == context


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -7,
        2**53 + 1,
        2**63 - 1,
        1.5,
        "",
        "7",
        "text",
        "grüße ☃",
        "line\nbreak\0",
        b"\xff\xfe\x00",
        [],
        {},
        {"a": [1, "2", None], "b": {"c": "d"}},
    ],
)
@pytest.mark.parametrize("taint", [False, True])
def test_values_survive_both_ways(session: PerlSession, value: object, taint: bool) -> None:
    got = session.run("$ARGS[0]", value, taint_args=taint).ok()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sub { 1 }", {"__code__": 1}),
        ("[JSON::true, JSON::false]", [True, False]),
        ("bless {}, 'Some::Class'", {"__class__": "Some::Class"}),
        ("\\*STDOUT", {"__ref__": "GLOB"}),
        ('"\\xe4\\xc4"', b"\xe4\xc4"),
        ('"\\xc3\\xa4"', "ä"),
        ('"\\x{263a}"', "☺"),
        ('my $n = 5; my $x = "$n"; $n + 0', 5),
        ('my $n = 5; my $x = "$n"; $n', 5),
        ("my $s = '5'; my $x = $s + 1; $s", "5"),
        ("[1 == 1, 1 == 2, 1, '']", [True, False, 1, ""]),
        ("[9**9**9, 1e15, 2**70, 0.1, 2**40]", [float("inf"), 1e15, 2.0**70, 0.1, 2**40]),
        ("()", None),
    ],
)
def test_values_of_perl(session: PerlSession, code: str, expected: object) -> None:
    got = session.run(code).ok()
    assert got == expected
    assert type(got) is type(expected)


def test_arguments_are_characters(session: PerlSession) -> None:
    assert session.run("[map { length } @ARGS]", "ä", "ä".encode()).ok() == [1, 2]


def test_booleans_become_numbers(session: PerlSession) -> None:
    assert session.run("[map { ref($_) || $_ } @ARGS]", True, False).ok() == [1, 0]


def test_refuses_what_perl_cannot_have(session: PerlSession) -> None:
    with pytest.raises(TypeError, match="can't pass set to Perl"):
        session.run("1", {1, 2})
    assert session.run("1").ok() == 1


def test_warnings_and_output(session: PerlSession) -> None:
    result = session.run("warn \"careful\\n\"; print 'out'; print STDERR 'err'; 1")
    assert result.warnings == ["careful\n"]
    assert result.stdout == "out"
    assert result.stderr == "careful\nerr"
    assert session.run("1") == PerlResult(1, None, None, None, [], "", "", False)


def test_strict_and_warnings_are_on(session: PerlSession) -> None:
    assert 'Global symbol "$x"' in str(session.run("$x = 1").error)
    assert "uninitialized" in session.run("my $u; my $v = 'a' . $u; $v").warnings[0]


def test_output_of_children(session: PerlSession) -> None:
    code = """
        print "before\\n";
        system('/bin/sh', '-c', 'echo grandchild; echo trouble >&2') == 0 or die "no shell";
        my $pid = fork() // die; if (!$pid) { print "fork\\n"; exit 0 } waitpid($pid, 0); $?
    """
    result = session.run("$| = 1;" + code)
    assert result.ok() == 0
    assert result.stdout == "before\ngrandchild\nfork\n"
    assert result.stderr == "trouble\n"


def test_die_with_text(session: PerlSession) -> None:
    result = session.run('die "wrong\\n"')
    assert (result.error, result.error_class, result.error_data) == ("wrong\n", None, None)
    with pytest.raises(AssertionError, match=r"Perl died: 'wrong\\n'"):
        result.ok()


def test_line_numbers_are_the_snippets(session: PerlSession) -> None:
    assert session.run("1;\ndie 'here'").error == "here at snippet line 2.\n"


def test_exception_objects(session: PerlSession) -> None:
    result = session.run("PVE::Exception::raise_param_exc({ size => 'too big', name => 'bad' })")
    assert result.error == "400 Parameter verification failed.\nname: bad\nsize: too big\n"
    assert result.error_class == "PVE::Exception"
    assert result.error_data == {
        "msg": "Parameter verification failed.\n",
        "code": 400,
        "errors": {"name": "bad", "size": "too big"},
    }
    other = session.run("die bless [], 'Other'")
    assert (other.error_class, other.error_data) == ("Other", None)


def test_error_after_a_success_is_not_stale(session: PerlSession) -> None:
    session.run("die 'old'")
    assert session.run("eval { die 'inner' }; 5").ok() == 5


@pytest.mark.parametrize(
    ("code", "tainted"),
    [
        ("'clean'", False),
        ("[$ARGS[0], { a => $ARGS[1] }]", False),
        ("$^X", True),
        ("$ENV{HOME}", True),
        ("[1, { deep => [2, $ENV{HOME}] }]", True),
        ("$ENV{PATH}", False),
    ],
)
def test_taint_report(session: PerlSession, code: str, tainted: bool) -> None:
    assert session.run(code, "x", 1).tainted is tainted


def test_tainted_arguments(session: PerlSession) -> None:
    code = "[map { Scalar::Util::tainted($_) ? 1 : 0 } $ARGS[0], $ARGS[1]{a}, $ARGS[2][0]]"
    args = ("x", {"a": 5}, [b"\xff"])
    assert session.run(code, *args).ok() == [0, 0, 0]
    assert session.run(code, *args, taint_args=True).ok() == [1, 1, 1]
    insecure = session.run("open(my $fh, '>', $ARGS[0])", "/dev/null", taint_args=True)
    assert "Insecure dependency in open" in str(insecure.error)


def test_without_taint_mode() -> None:
    result = run_perl("[${^TAINT}, $ENV{HOME}]", taint=False, preload="")
    assert result.ok()[0] == 0
    assert not result.tainted


def test_taint_mode_is_the_default(session: PerlSession) -> None:
    assert session.run("${^TAINT}").ok() == 1


def test_state_is_kept_between_snippets(session: PerlSession) -> None:
    session.run("our $kept = $ARGS[0]", 42)
    assert session.run("our $kept").ok() == 42


def test_environment_and_preload(tmp_path: Path) -> None:
    (tmp_path / "Mine.pm").write_text("package Mine; print 'loading'; warn \"hm\\n\"; 1;")
    with PerlSession(lib=[tmp_path], env={"MY_VALUE": "v"}, preload="use Mine;") as session:
        assert session.startup_stdout == "loading"
        assert session.startup_stderr == "hm\n"
        assert session.run("$ENV{MY_VALUE}").ok() == "v"


def test_preload_that_dies() -> None:
    with pytest.raises(PerlCrashed, match="preload failed: never mind"):
        PerlSession(preload='print STDERR "hint"; die "never mind\\n"')


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print STDERR 'last words'; exit 3", "exited with status 3"),
        ("print STDERR 'last words'; STDERR->flush(); kill 'KILL', $$; sleep 5", "status -9"),
    ],
)
def test_death_of_the_process(session: PerlSession, code: str, reason: str) -> None:
    with pytest.raises(PerlCrashed, match=reason) as caught:
        session.run(code)
    assert caught.value.stderr == "last words"
    with pytest.raises(PerlCrashed, match="has ended before"):
        session.run("1")


def test_death_while_a_child_keeps_the_pipe(session: PerlSession) -> None:
    with pytest.raises(PerlCrashed, match="status 4"):
        session.run("fork() // die or do { sleep 30; exit 0 }; exit 4")


def test_exec_in_a_snippet(session: PerlSession) -> None:
    with pytest.raises(PerlCrashed, match="status 6"):
        session.run("exec '/bin/sh', '-c', 'sleep 0.3; exit 6'")


def test_death_between_snippets(session: PerlSession) -> None:
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(PerlCrashed, match="status -9"):
        session.run("1")


def test_timeout_kills(session: PerlSession) -> None:
    begin = time.monotonic()
    with pytest.raises(PerlCrashed, match=r"no answer within 0\.5 s") as caught:
        session.run("print STDERR 'waiting'; sleep 30", timeout=0.5)
    assert time.monotonic() - begin < 10
    assert caught.value.stderr == "waiting"
    with pytest.raises(ProcessLookupError):
        os.kill(session.pid, 0)


def test_child_that_falls_out_of_the_snippet(session: PerlSession) -> None:
    assert session.run("my $pid = fork() // die; waitpid($pid, 0) if $pid; $? >> 8").ok() == 70
    assert session.run("'still in step'").ok() == "still in step"


def test_large_values(session: PerlSession) -> None:
    big = "x" * 3_000_000
    assert session.run("$ARGS[0] . 'y'", big).ok() == big + "y"


def test_include_dirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    standin = Path(perl.__file__).resolve().parent / "standin"
    assert not perl.is_genuine()
    assert perl.perl_include_dirs() == [tmp_path, standin]
    monkeypatch.setenv("PVE_PERL5LIB", "/a:/b")
    monkeypatch.delenv("PVE_PYBRIDGE_PERL_DIR")
    assert perl.is_genuine()
    first, second, shim, last = perl.perl_include_dirs()
    assert (first, second, last) == (Path("/a"), Path("/b"), standin)
    assert shim.name in ("shim", "perl5")


# What the genuine loader does, in little: imports the helper from PVE::Tools at compile time and
# asks for one hard-wired directory.
FAKE_STORAGE = """
package PVE::Storage;
use strict;
use warnings;
use PVE::Tools qw(dir_glob_foreach);
our @found;
my $dir = '/usr/share/perl5/PVE/Storage/Custom';
dir_glob_foreach($dir, '.*\\\\.pm$', sub { require "PVE/Storage/Custom/$_[0]"; push @found, $_[0] })
    if -d $dir;
1;
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="creates a system directory")
def test_genuine_loader_sees_include_dirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    genuine, first, second = (tmp_path / name for name in ("genuine", "first", "second"))
    (genuine / "PVE").mkdir(parents=True)
    (genuine / "PVE/Storage.pm").write_text(FAKE_STORAGE)
    for lib, name in ((first, "One"), (second, "Two"), (second, "One")):
        custom = lib / "PVE/Storage/Custom"
        custom.mkdir(parents=True, exist_ok=True)
        (custom / f"{name}.pm").write_text(f"package PVE::Storage::Custom::{name}; 1;")
    monkeypatch.setenv("PVE_PERL5LIB", os.fspath(genuine))
    with PerlSession(lib=[first, second]) as session:
        found = session.run("[grep { /^(?:One|Two)\\.pm$/ } @PVE::Storage::found]").ok()
    assert sorted(found) == ["One.pm", "Two.pm"]


def test_genuine_without_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PVE_PERL5LIB", "/nowhere")
    monkeypatch.setattr(perl, "_CUSTOM_DIR", tmp_path / "file/Custom")
    with pytest.raises(RuntimeError, match="must exist, even empty"):
        PerlSession(preload="")
