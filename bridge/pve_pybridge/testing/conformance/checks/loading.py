# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A. Loading and schema: what of it the plugin's own manifest decides."""

from __future__ import annotations

from typing import Any, Final

from ..outcome import NotApplicable
from ..subject import STOREID, Subject

NOWHERE: Final = {"PVE_PYBRIDGE_RUN": "/nonexistent"}
"""A process with this environment can't reach the plugin's server."""

FACTS: Final = """
    my ($type) = @ARGS;
    my $class = PVE::Storage::Plugin->lookup($type);
    my @facts = qw(type api plugindata properties options);
    my $once = sub { return { map { $_ => $class->$_() } @facts } };
    my ($first, $second) = ($once->(), $once->());
    delete $first->{plugindata}; # ours to change
    return [$second, $once->()];
"""
ROUND_TRIP: Final = """
    my ($storeid) = @ARGS;
    my $before = PVE::Storage::config()->{ids}->{$storeid};
    my $write = sub { PVE::Storage::write_config(PVE::Storage::config()) };
    PVE::Storage::lock_storage_config($write, 'writing failed');
    PVE::Cluster::cfs_update();
    return [$before, PVE::Storage::config()->{ids}->{$storeid}];
"""


def loads_without_server(s: Subject) -> None:
    """C-001: registered although nobody listens, and silently."""
    session = s.node.session(**NOWHERE)
    if session.startup_stderr or session.startup_stdout:
        s.fail(f"loading PVE::Storage says: {session.startup_stderr}{session.startup_stdout}")
    text = f"PVE::Storage::Plugin->lookup('{s.type}')  # the plugin's server is stopped"
    answer = s.run(text, "PVE::Storage::Plugin->lookup($ARGS[0])", s.type, session=session)
    session.close()
    if answer.error is not None:
        s.fail("the type is not registered")


def facts_are_constant(s: Subject) -> None:
    """C-009: equal each time, and known without the server."""
    session = s.node.session(**NOWHERE)
    text = "$class->type, api, plugindata, properties, options  # the plugin's server is stopped"
    answer = s.run(text, FACTS, s.type, session=session)
    session.close()
    if answer.error is not None:
        s.fail("the type's static facts are not there")
    second, third = answer.value
    if second != third:
        s.fail(f"the facts change from call to call: {second} became {third}")


def _previous(s: Subject) -> Any:
    if s.settings.previous is None:
        raise NotApplicable("no earlier release to compare with (--previous MANIFEST)")
    return s.settings.previous


def no_new_required_option(s: Subject) -> None:
    """C-010: a section of yesterday must not lack anything today."""
    before = _previous(s)["options"]
    for name, flags in s.manifest["options"].items():
        if flags.get("optional"):
            continue
        if before.get(name, {"optional": 1}).get("optional"):
            s.fail(
                f"option '{name}' is required now and was not in the previous release: sections"
                " without it become undef, and PVE's storage list fails; give it a default"
            )


def old_sections_parse(s: Subject) -> None:
    """C-011: nothing that a section of the previous release may say has gone."""
    before = _previous(s)
    for name in before["content"][0]:
        if name not in s.manifest["content"][0]:
            s.fail(f"content type '{name}' of the previous release is gone")
    for name in before["options"]:
        if name not in s.manifest["options"]:
            s.fail(f"option '{name}' of the previous release is gone: PVE warns, then drops it")


def round_trip(s: Subject) -> None:
    """C-013: what is written is read back."""
    answer = s.run("PVE::Storage::write_config($cfg), then read again", ROUND_TRIP, STOREID)
    if answer.error is not None or answer.stderr:
        s.fail(f"the section can't be written and read: {answer.error or answer.stderr}")
    before, after = answer.value
    if before != after:
        s.fail(f"the section changed from {before} to {after}")


CHECKS: Final = {
    "C-001": loads_without_server,
    "C-009": facts_are_constant,
    "C-010": no_new_required_option,
    "C-011": old_sections_parse,
    "C-013": round_trip,
}
