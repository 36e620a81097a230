#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One call by a process that loads nothing but what the shim needs for it.

use v5.36;

use PVE::Storage::PyBridge::Forward;
use PVE::Storage::PyBridge::Manifest;
use PVE::Storage::PyBridge::Method;

my ($manifest) = grep { $_->{type} eq 'bench' } PVE::Storage::PyBridge::Manifest::read_all();
my $name = 'activate_volume';
my $row = PVE::Storage::PyBridge::Method::row($name, $manifest->{methods}->{forward}->{$name});
my $forward = PVE::Storage::PyBridge::Forward::plan($manifest, $name, $row);
$forward->('bench', 'bridge1', { type => 'bench' }, 'vm-100-disk-0', undef, {}, {});
