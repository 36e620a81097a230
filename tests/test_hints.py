# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Hints: from PVE::Storage's own functions and from direct calls to what the plugin sees."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_util import GENUINE
from probe_util import VOLUME, Probe, scfg

S = scfg()
V = VOLUME
WINDOWS = "guest-is-windows"
MAY_DEACTIVATE = "plugin-may-deactivate-volume"
ACTIVATE = """
    my ($hints) = @ARGS;
    return PVE::Storage::activate_volumes(
        PVE::Storage::config(), ['h1:vm-1-disk-0'], undef, $hints);
"""
MAP = "return PVE::Storage::map_volume(PVE::Storage::config(), 'h1:vm-1-disk-0', undef, $ARGS[0]);"


@pytest.fixture(autouse=True, scope="module")
def configured(probe: Probe) -> None:
    probe.node.add("h1", "probe", content="images")


@pytest.fixture
def apiver(probe: Probe) -> int:
    """Of this host."""
    found: int = probe.node.perl("return PVE::Storage::APIVER()").ok()
    return found


@pytest.fixture
def knows_hints(probe: Probe) -> bool:
    """Whether this host has a list of hints: packages before the bump to 13 do already."""
    return bool(probe.node.perl("return PVE::Storage::Plugin->can('verify_hints') ? 1 : 0").ok())


FROM_PVE = pytest.mark.parametrize(
    ("code", "method"),
    [(ACTIVATE, "activate_volume"), (MAP, "map_volume")],
    ids=["activate_volumes", "map_volume"],
)
needs_hints = pytest.mark.usefixtures("with_hints")


@pytest.fixture
def with_hints(apiver: int) -> None:
    if apiver < 13:
        pytest.skip("this host passes no hints")


def hints(probe: Probe, method: str) -> dict[str, Any]:
    """What the plugin saw last."""
    found: dict[str, Any] = probe.last(method)["args"]["hints"]
    return found


GIVEN = [
    ({WINDOWS: 1, MAY_DEACTIVATE: 1}, True, True),
    ({WINDOWS: 0, MAY_DEACTIVATE: 1}, False, True),
    ({WINDOWS: 1}, True, None),
    ({MAY_DEACTIVATE: 0}, None, False),
    ({}, None, None),
    (None, None, None),
]


@pytest.mark.contract("C-077", "C-079")
@needs_hints
@pytest.mark.method("activate_volume", "map_volume")
@FROM_PVE
@pytest.mark.parametrize(("given", "windows", "may"), GIVEN)
def test_through_pve(
    probe: Probe,
    code: str,
    method: str,
    given: dict[str, int] | None,
    windows: bool | None,
    may: bool | None,
) -> None:
    """Not given is None, which is neither True nor False; undef and an empty hash are the same."""
    answer = probe.node.perl(code, given, taint_args=True)
    assert answer.ok() == ("/dev/mapped" if method == "map_volume" else answer.value)
    seen = hints(probe, method)
    assert seen["given"] == (given or {})
    assert (seen["windows"], seen["may_deactivate"]) == (windows, may)


@needs_hints
@FROM_PVE
def test_core_refuses_unknown_hints_before_us(probe: Probe, code: str, method: str) -> None:
    before = len(probe.seen(method))
    answer = probe.node.perl(code, {"new-hint": 1})
    assert answer.error is not None
    assert "internal error" in answer.error
    assert len(probe.seen(method)) == before


@pytest.mark.contract("C-033")
def test_unknown_hint_reaches_the_plugin(probe: Probe) -> None:
    """PVE may add hints without a new APIVER (contract 4.1)."""
    given = {"new-hint": "often", "other": {"deep": [1]}, WINDOWS: 1}
    probe.call("activate_volume", "h1", S, V, None, {}, given).ok()
    seen = hints(probe, "activate_volume")
    assert seen["given"] == given
    assert (seen["windows"], seen["nonsense"]) == (True, False)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("1", True), ("0", False), (1, True), (0, False), ("", False), (1.0, True), (None, None)],
)
def test_perls_truth(probe: Probe, value: object, meaning: bool | None) -> None:
    """A flag may be a string in Perl: "0" is false (V9)."""
    probe.call("activate_volume", "h1", S, V, None, {}, {WINDOWS: value}).ok()
    assert hints(probe, "activate_volume")["windows"] is meaning


@pytest.mark.parametrize(("flag", "meaning"), [("true", True), ("false", False)])
def test_json_booleans(probe: Probe, flag: str, meaning: bool) -> None:
    """verify_hints lets them through (V9)."""
    code = f"""
        require JSON;
        my $hints = {{ '{WINDOWS}' => JSON::{flag}() }};
        PVE::Storage::Custom::PyBridge::probe->map_volume('h1', $ARGS[0], $ARGS[1], undef, $hints);
    """
    probe.node.perl(code, S, V).ok()
    assert hints(probe, "map_volume")["windows"] is meaning


def test_hints_left_out(probe: Probe) -> None:
    """Containers and hosts before APIVER 13 don't pass the argument at all."""
    probe.call("activate_volume", "h1", S, V, None, {}).ok()
    assert hints(probe, "activate_volume")["given"] == {}
    probe.call("map_volume", "h1", S, V).ok()
    assert hints(probe, "map_volume")["given"] == {}


def test_wrong_type(probe: Probe) -> None:
    answer = probe.call("activate_volume", "h1", S, V, None, {}, "windows")
    message = "activate_volume: argument 'hints' must be a map, not a string\n"
    assert answer.error == message


# --- what the host knows -----------------------------------------------------------------------


def known_by(probe: Probe, **env: str) -> list[Any]:
    """(APIVER, APIAGE, hints the plugin is told of, hints.supported())."""
    probe.node.perl(
        "PVE::Storage::Custom::PyBridge::probe->map_volume('h1', @ARGS)", S, V, env=env
    ).ok()
    entry = probe.last("map_volume")
    host = entry["host"]
    supported = entry["args"]["hints"]["supported"]
    return [host["apiver"], host["apiage"], host["hints"], supported]


@pytest.mark.skipif(GENUINE, reason="a genuine host has one APIVER only")
@pytest.mark.parametrize(
    ("apiver", "age", "known"),
    [
        (10, 1, []),
        (12, 3, []),
        (13, 4, [WINDOWS, MAY_DEACTIVATE]),
        (15, 6, [WINDOWS, MAY_DEACTIVATE]),
    ],
)
def test_supported_by_host(probe: Probe, apiver: int, age: int, known: list[str]) -> None:
    found = known_by(probe, PVE_STANDIN_APIVER=str(apiver))
    assert found == [apiver, age, known, bool(known)]


def test_supported_by_this_host(probe: Probe, apiver: int, knows_hints: bool) -> None:
    age = probe.node.perl("return PVE::Storage::APIAGE()").ok()
    known = [WINDOWS, MAY_DEACTIVATE] if knows_hints else []
    assert known_by(probe) == [apiver, age, known, knows_hints]


# --- qemu_blockdev_options ---------------------------------------------------------------------


@pytest.mark.contract("C-033")
@pytest.mark.method("qemu_blockdev_options")
@pytest.mark.parametrize(
    "options",
    [
        {"hints": {}},
        {"hints": {"efi-disk": 1}},
        {"hints": {"efi-disk": 1, "new-hint": "x"}, "snapshot-name": "snap1"},
        {"snapshot-name": "snap1", "new": [1]},
        {},
    ],
)
def test_blockdev_hints_are_plain(probe: Probe, options: dict[str, Any]) -> None:
    """Another kind of hints, which nobody validates (contract 4.4)."""
    probe.call("qemu_blockdev_options", S, "h1", V, "10.1", options).ok()
    assert probe.last("qemu_blockdev_options")["args"]["options"] == options


def test_blockdev_options_may_be_missing(probe: Probe) -> None:
    for more in ([], [None], [None, None]):
        probe.call("qemu_blockdev_options", S, "h1", V, *more).ok()
        entry = probe.last("qemu_blockdev_options")["args"]
        assert (entry["machine_version"], entry["options"]) == (None, {})


@pytest.mark.contract("C-082")
@pytest.mark.method("qemu_blockdev_options")
def test_blockdev_through_pve(probe: Probe) -> None:
    if not probe.node.perl("return PVE::Storage->can('qemu_blockdev_options') ? 1 : 0").ok():
        pytest.skip("this host has no qemu_blockdev_options")
    options = {"hints": {"efi-disk": 1}, "snapshot-name": "snap1"}
    code = """
        return PVE::Storage::qemu_blockdev_options(
            PVE::Storage::config(), 'h1:vm-1-disk-0', '10.1+pve0', $ARGS[0]);
    """
    answer = probe.node.perl(code, options)
    assert answer.ok() == {
        "driver": "nbd",
        "server": {"type": "unix", "path": "/run/x.sock"},
        "export": "ü",
        "open-timeout": 5,
    }
    assert "dropping block device option" in answer.stderr
    seen = probe.last("qemu_blockdev_options")["args"]
    assert (seen["machine_version"], seen["options"]) == ("10.1+pve0", options)
