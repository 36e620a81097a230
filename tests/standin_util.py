# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A pretended PVE node in a directory, with custom plugins of a few lines of Perl each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pve_pybridge.testing.perl import PerlSession

# Every method of interest notes its arguments in @main::CALLS. $EXTRA comes last, so that it may
# redefine any of them.
PLUGIN = """
package PVE::Storage::Custom::{name};
use strict;
use warnings;
no warnings 'redefine';
use base qw(PVE::Storage::Plugin);

sub note {{ push @main::CALLS, [@_] }}
sub api {{ return {api} }}
sub type {{ return '{type}' }}
sub plugindata {{
    return {{
        content => [{{ images => 1, rootdir => 1, none => 1 }}, {{ images => 1 }}],
        'sensitive-properties' => {{ '{type}-token' => 1 }},
    }};
}}
sub properties {{
    return {{
        '{type}-token' => {{ type => 'string' }},
        '{type}-size' => {{ type => 'integer', minimum => 5 }},
        '{type}-flag' => {{ type => 'boolean' }},
        '{type}-list' => {{ type => 'array', items => {{ type => 'string' }} }},
    }};
}}
sub options {{
    return {{
        server_name(),
        map {{ $_ => {{ optional => 1 }} }} qw(
            content nodes disable shared format
            {type}-token {type}-size {type}-flag {type}-list
        ),
    }};
}}
sub server_name {{ return () }}
sub parse_volname {{
    my ($class, $volname) = @_;
    if ($volname =~ m{{^(?:(base-(\\d+)-\\S+)/)?((vm|base)-(\\d+)-\\S+)$}}) {{
        return ('images', $3, $5, $1, $2, $4 eq 'base' ? 1 : undef, 'raw');
    }}
    die "unable to parse volume name '$volname'\\n";
}}
sub check_connection {{ note('check_connection', $_[1]); return 1 }}
sub activate_storage {{ note('activate_storage', $_[1]); return }}
sub activate_volume {{ my $class = shift; note('activate_volume', @_); return }}
sub deactivate_volume {{ my $class = shift; note('deactivate_volume', $_[2]); return }}
sub map_volume {{ my $class = shift; note('map_volume', @_); return '/dev/mapped' }}
sub path {{ return wantarray ? ("/dev/$_[2]", 100, 'images') : "/dev/$_[2]" }}
sub status {{ return (100, 60, 40, 1) }}
sub alloc_image {{ my $class = shift; note('alloc_image', @_, umask()); return 'vm-100-disk-0' }}
sub free_image {{ my $class = shift; note('free_image', @_); return undef }}
sub list_images {{
    return [
        {{ volid => "$_[1]:vm-100-disk-1", vmid => 100, format => 'raw', size => 1024 }},
        {{ volid => "$_[1]:vm-100-disk-0", vmid => 100, format => 'raw', size => 1024 }},
        {{ volid => "$_[1]:vm-200-disk-0", vmid => 200, format => 'raw', size => 1024 }},
    ];
}}
sub on_add_hook {{ my $class = shift; note('on_add_hook', @_); return undef }}
sub on_update_hook {{ my $class = shift; note('on_update_hook', @_); return undef }}
sub on_delete_hook {{ my $class = shift; note('on_delete_hook', @_); return undef }}
{extra}
1;
"""


class Node:
    """Directories standing for /etc/pve, the lock directory and a place for plugins."""

    def __init__(self, root: Path) -> None:
        self.etc = root / "etc"
        self.lib = root / "lib"
        self.custom = self.lib / "PVE/Storage/Custom"
        self.locks = root / "locks"
        for directory in (self.etc, self.custom):
            directory.mkdir(parents=True)

    @property
    def storage_cfg(self) -> str:
        return (self.etc / "storage.cfg").read_text()

    def configure(self, text: str) -> None:
        (self.etc / "storage.cfg").write_text(text)

    def plugin(
        self, name: str, kind: str, extra: str = "", api: str = "PVE::Storage::APIVER()"
    ) -> None:
        """Install a custom plugin with the storage type ``kind``."""
        text = PLUGIN.format(name=name, type=kind, api=api, extra=extra)
        (self.custom / f"{name}.pm").write_text(text)

    def session(self, apiver: int = 13, preload: str | None = None, **env: str) -> PerlSession:
        return PerlSession(
            lib=[self.lib],
            env={
                "PVE_STANDIN_APIVER": str(apiver),
                "PVE_PYBRIDGE_ETC_PVE": os.fspath(self.etc),
                "PVE_STANDIN_LOCK_DIR": os.fspath(self.locks),
                **env,
            },
            preload=preload if preload is not None else "use PVE::API2::Storage::Config;",
        )


CONFIG = "PVE::API2::Storage::Config"
SECTION = "foo: one\n\tcontent images\n\n"


def calls(session: PerlSession) -> list[list[object]]:
    """What the plugins noted since the last time."""
    noted: list[list[object]] = session.run("our @CALLS; my @c = @CALLS; @CALLS = (); \\@c").ok()
    return noted


def isolate(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    """Stand-in only: neither genuine modules nor the shim."""
    monkeypatch.delenv("PVE_PERL5LIB", raising=False)
    monkeypatch.setenv("PVE_PYBRIDGE_PERL_DIR", os.fspath(empty))


SessionMaker = Callable[..., PerlSession]


def session_maker(node: Node) -> Iterator[SessionMaker]:
    """Yield a function that opens sessions on ``node`` and close them all afterwards."""
    opened: list[PerlSession] = []

    def make(apiver: int = 13, preload: str | None = None, **env: str) -> PerlSession:
        opened.append(node.session(apiver, preload, **env))
        return opened[-1]

    yield make
    for session in opened:
        session.close()
