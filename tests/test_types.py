# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Values by declared type, from Perl to the plugin and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe_util import VOLUME, Probe, scfg
from pve_pybridge.coerce import ARGUMENTS, argument, truth
from pve_pybridge.config import StorageConfig, option
from pve_pybridge.errors import StorageError

S = scfg()
V = VOLUME
BOUNDED = settings(max_examples=40, deadline=None)


def eval_call(probe: Probe, perl: str, method: str, *before: object) -> Any:
    """Call with one more argument, the value of a Perl expression."""
    code = f"PVE::Storage::Custom::PyBridge::probe->{method}(@ARGS, {perl});"
    return probe.node.perl(code, *before)


# --- integers ----------------------------------------------------------------------------------

INTEGERS = [
    ("5", 5),
    ("'5'", 5),
    ("5.0", 5),
    ("'5.0'", 5),
    ("'5e3'", 5000),
    ("1e3", 1000),
    ("1024 * 1024 / 1024", 1024),
    ("'-5'", -5),
    ("2**53 - 1", (1 << 53) - 1),
    ("2**53 + 2", (1 << 53) + 2),
    ("9007199254740993", (1 << 53) + 1),
    ("'9007199254740993'", (1 << 53) + 1),
    ("2**60", 1 << 60),
    ("1152921504606846977", (1 << 60) + 1),
    ("9223372036854775807", (1 << 63) - 1),
    ("'9223372036854775808'", 1 << 63),
    ("18446744073709551615", (1 << 64) - 1),
    ('do { my $x = 2**60; my $shown = "$x"; $x }', 1 << 60),
    ('do { my $x = 7; my $shown = "$x"; $x }', 7),
]


@pytest.mark.contract("C-029", "C-031")
@pytest.mark.parametrize(("perl", "size"), INTEGERS, ids=[perl for perl, _ in INTEGERS])
def test_integer_however_perl_holds_it(probe: Probe, perl: str, size: int) -> None:
    eval_call(probe, perl, "volume_resize", S, "p1", V).ok()
    seen = probe.last("volume_resize")["args"]["size"]
    assert (type(seen), seen) == (int, size)


NO_INTEGERS = [
    ("'abc'", "'abc'"),
    ("''", "''"),
    ("5.5", "'5.5'"),
    ("'5 TB'", "'5 TB'"),
    ("'0x10'", "'0x10'"),
    ("9**9**9", "'inf'"),
    ("-sin(9**9**9)", "'nan'"),
    ("[1]", "'ARRAY(0x"),
]


@pytest.mark.parametrize(("perl", "shown"), NO_INTEGERS, ids=[perl for perl, _ in NO_INTEGERS])
def test_no_integer(probe: Probe, perl: str, shown: str) -> None:
    answer = eval_call(probe, perl, "volume_resize", S, "p1", V)
    message = f"volume_resize: argument 'size' must be an integer, not {shown}"
    assert answer.error == f"{message}\n" or (perl == "[1]" and answer.error.startswith(message))
    assert answer.error.count("\n") == 1


@pytest.mark.contract("C-031")
@pytest.mark.parametrize("size", [1 << 53, (1 << 53) + 1, (1 << 60) + 1, (1 << 63) - 1])
def test_sizes_from_python_stay_exact(probe: Probe, size: int) -> None:
    """The probe answers with 2^60 + 1 and 2^53 + 1; the codec carries any other."""
    code = """
        my ($status, $size) = @ARGS;
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        my ($total, $avail) = $class->status('p1', $status, {});
        $class->volume_resize($status, 'p1', 'vm-1-disk-0', $size);
        my $found = $class->volume_size_info($status, 'p1', 'vm-1-disk-0');
        return [$total, $avail, $found];
    """
    answer = probe.node.perl(code, S, size).ok()
    assert answer == [1 << 60, (1 << 53) + 1, (1 << 60) + 1]
    assert [type(item) for item in answer] == [int] * 3
    assert probe.last("volume_resize")["args"]["size"] == size


@BOUNDED
@given(st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-1000, 1000)))
def test_any_integer_as_string_or_number(probe: Probe, value: int) -> None:
    code = """
        my ($class, @given) = ('PVE::Storage::Custom::PyBridge::probe', @ARGS[0 .. 2]);
        $class->volume_resize(@given, $ARGS[3]);
        $class->volume_resize(@given, "$ARGS[3]");
    """
    probe.node.perl(code, S, "p1", V, value).ok()
    assert [entry["args"]["size"] for entry in probe.seen("volume_resize")[-2:]] == [value] * 2


# --- KiB ---------------------------------------------------------------------------------------

KIB = [
    ("1", 1024),
    ("'528'", 528 * 1024),
    ("4096.0", 4 << 20),
    ("1.5", 1536),
    ("0.5", 512),
    ("1 / 1024", 1),
    ("1025 / 1024", 1025),
    ("1.0001", 1025),
    ("'1.5'", 1536),
    ("2 ** 36", 1 << 46),
    ("2 ** 50", 1 << 60),
    ("(2 ** 40 + 1) / 1024", (1 << 40) + 1),
    ("(2 ** 52 + 1) / 1024", (1 << 52) + 1),
    ("8796093022209", 8796093022209 * 1024),
    ("'999999999999999'", 999999999999999 * 1024),
    ("0", 0),
]


@pytest.mark.contract("C-029", "C-031", "C-058")
@pytest.mark.method("alloc_image")
@pytest.mark.parametrize(("perl", "size"), KIB, ids=[perl for perl, _ in KIB])
def test_kib_become_bytes_rounded_up(probe: Probe, perl: str, size: int) -> None:
    eval_call(probe, perl, "alloc_image", "p1", S, 100, "raw", None).ok()
    assert probe.last("alloc_image")["args"]["size"] == size


@BOUNDED
@given(st.integers(1, 1 << 52))
def test_no_byte_is_lost(probe: Probe, size: int) -> None:
    """Core computes KiB from bytes with "/" (T-05): never less than it wanted, hardly more."""
    code = """
        PVE::Storage::Custom::PyBridge::probe->alloc_image(@ARGS[0 .. 4], $ARGS[5] / 1024);
    """
    probe.node.perl(code, "p1", S, 100, "raw", None, size).ok()
    got = probe.last("alloc_image")["args"]["size"]
    assert size <= got <= size + math.ceil(size / (1 << 50))


@pytest.mark.parametrize(
    ("perl", "message"),
    [
        ("-1", "must not be negative, not -1"),
        ("'much'", "must be an integer, not 'much'"),
        ("''", "must be an integer, not ''"),
        ("9**9**9", "must be an integer, not 'Inf'"),
    ],
)
def test_no_size(probe: Probe, perl: str, message: str) -> None:
    answer = eval_call(probe, perl, "alloc_image", "p1", S, 100, "raw", None)
    assert answer.error == f"alloc_image: argument 'size' {message}\n"


@pytest.mark.parametrize("given_", [[], [None]])
def test_missing_size(probe: Probe, given_: list[None]) -> None:
    answer = probe.call("alloc_image", "p1", S, 100, "raw", None, *given_)
    assert answer.error == "alloc_image: argument 'size' is missing\n"


# --- undef, missing, empty ---------------------------------------------------------------------


@pytest.mark.contract("C-030")
@pytest.mark.parametrize(
    ("more", "seen"), [([], None), ([None], None), ([""], ""), (["s1"], "s1"), ([0], "0")]
)
def test_snapname(probe: Probe, more: list[Any], seen: str | None) -> None:
    probe.call("deactivate_volume", "p1", S, V, *more).ok()
    assert probe.last("deactivate_volume")["args"]["snapname"] == seen


@pytest.mark.contract("C-030")
@pytest.mark.parametrize("given_", [{}, {"probe-token": None}, {"probe-token": ""}])
def test_sensitive_values(probe: Probe, given_: dict[str, Any]) -> None:
    probe.call("on_update_hook_full", "p1", S, {}, None, given_).ok()
    assert probe.last("on_update_hook_full")["args"]["sensitive"] == given_


@pytest.mark.contract("C-030")
@pytest.mark.parametrize("given_", [None, [], ["probe-mode"], ["probe-mode", "nodes"]])
def test_delete_list(probe: Probe, given_: list[str] | None) -> None:
    probe.call("on_update_hook_full", "p1", S, {}, given_, {}).ok()
    assert probe.last("on_update_hook_full")["args"]["delete"] == given_


@pytest.mark.parametrize(
    ("value", "seen"),
    [(1, True), (4711, True), ("yes", True), (0, False), ("0", False), ("", False), (None, False)],
)
def test_truth(probe: Probe, value: object, seen: bool) -> None:
    probe.call("volume_resize", S, "p1", V, 1024, value).ok()
    assert probe.last("volume_resize")["args"]["running"] is seen


@pytest.mark.parametrize(
    ("value", "seen"), [(0, False), (1, True), (None, False), ([], []), (["a", "b"], ["a", "b"])]
)
def test_with_snapshots(probe: Probe, value: object, seen: object) -> None:
    """A flag or a list of names (V25)."""
    probe.call("volume_export_formats", S, "p1", V, None, None, value, context="list").ok()
    assert probe.last("volume_export_formats")["args"]["with_snapshots"] == seen


WRONG = [
    ("activate_volume", ["p1", S], "'volname' is missing"),
    ("volume_snapshot", [S, "p1", V], "'snapname' is missing"),
    ("list_volumes", ["p1", S, None], "'content_types' is missing"),
    ("list_volumes", ["p1", S, None, "images"], "'content_types' must be a list, not a string"),
    ("list_images", ["p1", S, "many"], "'vmid' must be an integer, not 'many'"),
    ("volume_size_info", [S, "p1", V, "soon"], "'timeout' must be a number, not 'soon'"),
    ("prune_backups", [S, "p1", []], "'keep' must be a map, not a list"),
    (
        "prune_backups",
        [S, "p1", {"keep-last": "x"}],
        "'keep' holds 'keep-last', which must be an integer, not 'x'",
    ),
    ("qemu_blockdev_options", [S, "p1", V, None, 1], "'options' must be a map, not a number"),
    ("free_image", ["p1", S], "'volname' is missing"),
]


@pytest.mark.parametrize(("method", "given_", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_wrong_argument(probe: Probe, method: str, given_: list[Any], message: str) -> None:
    answer = probe.call(method, *given_)
    assert answer.error == f"{method}: argument {message}\n"


# --- text and bytes ----------------------------------------------------------------------------

RAW = b"\xff\xfe/\x80"


@pytest.mark.contract("C-032")
def test_bytes_in_the_section(probe: Probe) -> None:
    probe.call("get_identity", scfg(probe_value=RAW, comment=RAW), "p1").ok()
    entry = probe.last("get_identity")
    for found in (entry["config"]["value"], entry["scfg"]["comment"]):
        assert found.encode("utf-8", "surrogateescape") == RAW


@pytest.mark.contract("C-032")
def test_bytes_in_a_volume_name_and_path(probe: Probe) -> None:
    name = b"vm-100-\xff\xe4"
    answer = probe.call("path", S, name, "p1", context="list").ok()
    assert answer == [f"{probe.node.run}/".encode() + name + b"@", 100, "images"]
    assert probe.last("path")["args"]["volname"].encode("utf-8", "surrogateescape") == name


LENGTHS = """
    my ($method, @given) = @ARGS;
    my $value = PVE::Storage::Custom::PyBridge::probe->$method(@given);
    $value = $value->[1]->{$ENV{PROBE_KEY}} if ref($value);
    return [length($value), utf8::is_utf8($value) ? 1 : 0];
"""


def test_note_is_characters_path_is_bytes(probe: Probe) -> None:
    """One ü is one character of a note, and two bytes of a path."""
    perl = probe.node.perl
    assert perl(LENGTHS, "get_volume_attribute", S, "p1", V, "notes").ok() == [7, 1]
    code = LENGTHS.replace("$ENV{PROBE_KEY}", "notes")
    assert perl(code, "list_images", "p1", S, None).ok() == [1, 1]
    code = LENGTHS.replace("$ENV{PROBE_KEY}", "name")
    assert perl(code, "list_images", "p1", S, None).ok() == [2, 0]
    name = "vm-100-ü".encode()
    length = len(f"{probe.node.run}/@") + len(name)
    assert perl(LENGTHS, "path", S, name, "p1").ok() == [length, 0]


@pytest.mark.parametrize(
    "perl", ['"n\\x{f6}te"', 'do { my $x = "n\\x{f6}te"; utf8::upgrade($x); $x }']
)
def test_note_given_as_characters(probe: Probe, perl: str) -> None:
    """However Perl keeps them: the same four characters."""
    eval_call(probe, perl, "update_volume_attribute", S, "p1", V, "notes").ok()
    assert probe.last("update_volume_attribute")["args"]["value"] == "nöte"


def test_wide_characters_in_a_note(probe: Probe) -> None:
    for note in ("✓ 日本語 \U0001f600", "", "line\nline"):
        probe.call("update_volume_attribute", S, "p1", V, "notes", note).ok()
        assert probe.last("update_volume_attribute")["args"]["value"] == note


@BOUNDED
@given(st.binary(max_size=40))
def test_any_config_value(probe: Probe, value: bytes) -> None:
    probe.call("get_identity", scfg(probe_value=value), "p1").ok()
    seen = probe.last("get_identity")["config"].get("value")
    assert (seen or "").encode("utf-8", "surrogateescape") == value


@BOUNDED
@given(
    st.recursive(
        st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62), st.text("aü✓", max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text("abc", max_size=3), inner)
        ),
        max_leaves=8,
    )
)
def test_any_structure(probe: Probe, value: object) -> None:
    """Options nobody knows pass through with everything in them (C-033)."""
    probe.call("qemu_blockdev_options", S, "p1", V, None, {"new": value}).ok()
    assert probe.last("qemu_blockdev_options")["args"]["options"] == {"new": value}


# --- the section as a typed object -------------------------------------------------------------


def test_typed_section(probe: Probe) -> None:
    section = scfg(
        probe_limit="5", probe_ratio="0.5", probe_eager="1", nodes={"n1": 1, "n2": 1}, shared=1
    )
    probe.call("get_identity", section, "p1").ok()
    assert probe.last("get_identity")["config"] == {
        "content": ["images"],
        "nodes": ["n1", "n2"],
        "shared": True,
        "disable": False,
        "limit": 5,
        "ratio": 0.5,
        "eager": True,
    }


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"probe-limit": "few"}, "'probe-limit' must be an integer, not 'few'"),
        ({"probe-limit": ""}, "'probe-limit' must be an integer, not ''"),
        ({"probe-ratio": "half"}, "'probe-ratio' must be a number, not 'half'"),
        ({"probe-eager": "perhaps"}, "'probe-eager' must be 0 or 1, not 'perhaps'"),
        ({"probe-mode": ["a"]}, "'probe-mode' must be a single value, not ['a']"),
        ({"nodes": "n1"}, "'nodes' must be a set, not 'n1'"),
    ],
)
def test_invalid_property(probe: Probe, section: dict[str, Any], message: str) -> None:
    answer = probe.call("get_identity", {**S, **section}, "p1")
    assert answer.error == f"storage 'p1': property {message}\n"


def test_missing_property() -> None:
    config: Any = StorageConfig
    assert config.from_scfg("p1", "probe", {"unknown": 1}).shared is False

    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Needy(StorageConfig):
        server: str = option("required")

    with pytest.raises(StorageError) as caught:
        Needy.from_scfg("p1", "needy", {})
    assert str(caught.value) == "storage 'p1': property 'needy-server' is missing"


# --- the coercions by themselves ---------------------------------------------------------------


@given(st.sampled_from(sorted(ARGUMENTS)), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.binary(max_size=3), inner, max_size=3)),
))  # fmt: skip
def test_no_value_breaks_a_coercion(type_: str, value: object) -> None:
    """It fits, or one line says why not."""
    try:
        argument(type_, "name", value)
    except StorageError as err:
        words = str(err)
    else:
        words = "'name' fits"
    assert words.startswith("'name' ")
    assert "\n" not in words


@given(st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.booleans()))
def test_truth_is_perls(value: object) -> None:
    assert truth(value) == (value not in (None, 0, b"", b"0", "", "0"))
