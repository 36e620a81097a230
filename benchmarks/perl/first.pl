#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One call by a process that loads nothing but what calls need. A process of PVE has read the
# manifests long before, see rows/loading.py; here the one row is as it stands there.

use v5.36;

use PVE::Storage::PyBridge::Forward;

my $row = {
    context => 'scalar', result => 'none', retry => 1,
    args => [
        ['storeid', 'storeid'], ['scfg', 'scfg'], ['volname', 'str'], ['snapname', 'str'],
        ['cache', 'cache'], ['hints', 'hints']
    ],
};
my $forward = PVE::Storage::PyBridge::Forward::plan({ type => 'bench' }, 'activate_volume', $row);
$forward->('bench', 'bridge1', { type => 'bench' }, 'vm-100-disk-0', undef, {}, {});
