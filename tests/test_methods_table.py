# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The method table against PVE's own base class, the SDK's signatures and both coders."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from bridge_util import Node
from probe_util import BARE, PROBE
from pve_pybridge import StoragePlugin, manifest
from pve_pybridge.coerce import ARGUMENTS, FILLED
from pve_pybridge.loader import load
from pve_pybridge.methods import (
    DEADLINES,
    LIMITS,
    LOCAL,
    LOCAL_TYPES,
    METHODS,
    NOT_STORAGE_METHODS,
    Method,
)
from pve_pybridge.results import RESULTS, RESULTS_OF_STORAGE

ROWS = pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.name)
OTHERS = [name for names in NOT_STORAGE_METHODS.values() for name in names]

OWN_SUBS = """
    require B;
    my ($package) = @ARGS;
    no strict 'refs';
    my @found;
    for my $name (sort keys %{"${package}::"}) {
        next if !defined(&{"${package}::$name"});
        my $sub = B::svref_2object(\\&{"${package}::$name"});
        my $from = $sub->GV->STASH->NAME;
        next if $sub->CvFLAGS & B::CVf_CONST(); # imported or not, no method
        push @found, $name if $from eq $package && $name !~ /\\A(?:__ANON__|BEGIN|END|\\()/;
    }
    return \\@found;
"""


@pytest.mark.contract("C-034")
def test_every_sub_of_the_base_class_is_accounted_for(node: Node) -> None:
    """A method that a newer PVE brings must not silently be inherited from a directory storage."""
    found = node.perl(OWN_SUBS, "PVE::Storage::Plugin").ok()
    assert {"path", "activate_volume", "alloc_image"} <= set(found)
    unknown = [name for name in found if name not in METHODS and name not in OTHERS]
    assert unknown == []


def test_every_row_is_a_method_of_pve(node: Node) -> None:
    """Or of our own, or (on older hosts, by its first APIVER) of the future."""
    code = """
        my @known = grep { PVE::Storage::Plugin->can($_) } @ARGS;
        return [PVE::Storage::APIVER(), { map { $_ => 1 } @known }];
    """
    apiver, known = node.perl(code, *METHODS).ok()
    missing = {row.name for row in METHODS.values() if row.since <= apiver} - known.keys()
    duck_typed = {"api", "get_import_metadata", "free_image_cleanup"}
    deprecated = {"get_volume_notes", "update_volume_notes"}
    without_bump = {"config_aware_base_mkdir", "get_formats", "rename_snapshot"}
    without_bump |= {"volume_qemu_snapshot_method", "get_identity"}
    assert missing <= duck_typed | deprecated | (without_bump if apiver < 15 else set())


def test_nothing_is_classified_twice() -> None:
    assert not METHODS.keys() & set(OTHERS)
    assert len(OTHERS) == len(set(OTHERS))
    assert not LOCAL - METHODS.keys()
    assert LIMITS.keys() <= METHODS.keys()


@ROWS
def test_row_makes_sense(row: Method) -> None:
    assert row.timing in DEADLINES
    assert row.absent in ("inherit", "refuse", "static")
    assert row.context in ("scalar", "first", "list")
    assert 1 <= row.since <= 15
    names = [arg.name for arg in row.args]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in names)
    assert not row.shared or row.retry, "a shared call must be harmless"
    assert not (row.locked and row.retry), "what is locked changes something"
    assert "slurpy" not in [arg.type for arg in row.args[:-1]]


@ROWS
def test_newer_arguments_come_last(row: Method) -> None:
    """PVE appends; whoever calls an older host leaves them out."""
    since = [arg.since for arg in row.args]
    assert since == sorted(since)
    assert all(arg.optional for arg in row.args if arg.since > 1)


@ROWS
def test_storage_is_known(row: Method) -> None:
    names = [arg.name for arg in row.args]
    if row.name not in LOCAL and row.name not in (
        "parse_volname",
        "volume_snapshot_needs_fsfreeze",
    ):
        assert "storeid" in names
        assert "scfg" in names or row.name == "on_update_hook"


def forwardable() -> list[Method]:
    return [row for row in METHODS.values() if row.name not in LOCAL and row.absent is not None]


def test_python_knows_every_type() -> None:
    used = {arg.type for row in forwardable() for arg in row.args if arg.on_wire}
    assert used <= ARGUMENTS.keys()
    assert not FILLED - ARGUMENTS.keys()
    results = {row.result for row in forwardable()} - {"path", "cleanup", "volname7"}
    assert results <= RESULTS.keys() | RESULTS_OF_STORAGE.keys()


def test_perl_knows_every_type(node: Node) -> None:
    code = """
        require PVE::Storage::PyBridge::Forward;
        my ($types) = @ARGS;
        my $row = sub { return { args => [['x', $_[0]]], context => 'scalar', result => 'none' } };
        my $plan = PVE::Storage::PyBridge::Forward->can('plan');
        return [grep { !eval { $plan->({ type => 'x' }, 'x', $row->($_)); 1 } } @$types];
    """
    used = {arg.type for row in forwardable() for arg in row.args}
    assert used > LOCAL_TYPES - {"code"}
    assert node.perl(code, [*sorted(used), "nonsense"]).ok() == ["nonsense"]


FOR_AUTHORS = {"select"}
"""What StoragePlugin offers to call, not to override."""


def sdk_methods() -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(StoragePlugin, inspect.isfunction)
        if not name.startswith("_") and name not in FOR_AUTHORS
    }


def test_only_states_are_shared() -> None:
    """Who has just made or freed a volume must not get a list that was begun before."""
    shared = [row.name for row in METHODS.values() if row.shared]
    assert shared == ["check_connection", "activate_storage", "status"]


def test_sdk_has_every_method_that_can_be_forwarded() -> None:
    rules_only = {"volume_snapshot_needs_fsfreeze", "storage_can_replicate"}
    through_full = {"on_update_hook"}
    assert sdk_methods().keys() == METHODS.keys() - LOCAL - rules_only - through_full


@pytest.mark.parametrize("name", sdk_methods())
def test_sdk_signature_is_the_row(name: str) -> None:
    """A plugin's arguments are called as the wire calls them, in PVE's order."""
    row = METHODS[name]
    parameters = list(sdk_methods()[name].parameters)
    first = ["self"] if name == "parse_volname" else ["self", "storage"]
    local = LOCAL_TYPES - {"fd"}
    wire = [arg.name for arg in row.args if arg.type not in local]
    if name == "on_add_hook":
        assert wire[0] == "scfg"
    assert parameters == first + wire


@pytest.mark.parametrize("name", sdk_methods())
def test_sdk_annotations_fit_the_row(name: str) -> None:
    """What may be undef may be None; what can't, can't."""
    row = METHODS[name]
    for arg in row.args:
        parameter = sdk_methods()[name].parameters.get(arg.name)
        if parameter is None or arg.type in FILLED or arg.type == "fd":
            continue
        nullable = "None" in re.sub(r"\[.*\]", "", parameter.annotation)
        assert nullable == arg.optional, f"{name}: {arg.name}: {parameter.annotation}"


# --- the manifest ------------------------------------------------------------------------------


def words(manifest: dict[str, Any], call: str, name: str) -> tuple[list[str], list[str]]:
    """Context, result and flags of a row; its arguments."""
    found = manifest["methods"][call][name].split()
    flags = [word for word in found[2:] if "=" in word]
    return found[:2] + flags, found[2 + len(flags) :]


def test_manifest_of_a_complete_plugin() -> None:
    built: Any = manifest.build(load(str(PROBE)))
    forwarded = built["methods"]["forward"]
    assert forwarded.keys() == sdk_methods().keys() - {"parse_volname"} | {"on_update_hook"}
    for name in forwarded:
        row = METHODS[name]
        (context, result, *flags), args = words(built, "forward", name)
        assert [arg.split(":")[0] for arg in args] == [arg.name for arg in row.args]
        assert [arg.split(":")[-1] for arg in args] == [arg.type for arg in row.args]
        assert (context, result) == (row.context, row.result)
        said = dict(flag.split("=") for flag in flags)
        assert said.get("retry") == ("1" if row.retry else None)
        assert ("deadline" in said) == (row.limit is not None)
        assert float(said.get("deadline", 1e9)) > (row.limit or 0), "the server answers first"


def test_manifest_of_a_bare_plugin() -> None:
    built: Any = manifest.build(load(str(BARE)))
    calls = {name: manifest.call_of(built, name) for name in METHODS}
    forwarded = [name for name, call in calls.items() if call == "forward"]
    assert sorted(forwarded) == ["list_images", "path", "status"]
    for row in METHODS.values():
        if row.name in LOCAL or row.name in forwarded or row.name == "free_image_cleanup":
            continue
        assert calls[row.name] == row.absent, row.name


def test_rows_of_local_methods_never_leave() -> None:
    for plugin in (PROBE, BARE):
        built = manifest.build(load(str(plugin)))
        assert {manifest.call_of(built, name) for name in LOCAL} == {"inherit"}
