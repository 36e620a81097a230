#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One call by a process that loads nothing but what the shim needs for it.

use v5.36;

use PVE::Storage::PyBridge::Forward;
use PVE::Storage::PyBridge::Manifest;

my ($manifest) = grep { $_->{type} eq 'bench' } PVE::Storage::PyBridge::Manifest::read_all();
my $row = $manifest->{methods}->{activate_volume};
my $forward = PVE::Storage::PyBridge::Forward::plan($manifest, 'activate_volume', $row);
$forward->('bench', 'bridge1', { type => 'bench' }, 'vm-100-disk-0', undef, {}, {});
