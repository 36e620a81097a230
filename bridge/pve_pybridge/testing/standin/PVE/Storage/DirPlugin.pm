# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Storage::DirPlugin;

# The one built-in type: owner of property names that others may want, and the type of "local".

use strict;
use warnings;

use PVE::JSONSchema qw(get_standard_option);

use base qw(PVE::Storage::Plugin);

sub type { return 'dir' }

sub plugindata {
    my @content = qw(images rootdir vztmpl iso backup snippets import none);
    return {
        content => [{ map { $_ => 1 } @content }, { images => 1, rootdir => 1 }],
        format => [{ raw => 1, qcow2 => 1, vmdk => 1, subvol => 1 }, 'raw'],
        'sensitive-properties' => {},
    };
}

# What PVE's other types own (contract 1.4): plugins may use these names, but not define them.
my %owned_by_others = (
    boolean =>
        [qw(krbd fuse saferemove tagged_only nocow sparse nowritecache skip-cert-verification)],
    string => [
        qw(server export share domain smbversion password username monhost pool data-pool),
        qw(namespace authsupported keyring fs-name target portal vgname base),
        qw(saferemove-stepsize saferemove_throughput thinpool blocksize mountpoint),
        qw(iscsiprovider comstar_tg comstar_hg lio_tpg zfs-base-path datastore fingerprint),
        qw(encryption-key master-pubkey),
    ],
);

sub properties {
    my $boolean = { type => 'boolean' };
    my %others;
    for my $type (keys %owned_by_others) {
        $others{$_} = { type => $type } for @{ $owned_by_others{$type} };
    }
    return {
        %others,
        path => { type => 'string', format => 'pve-storage-path' },
        mkdir => $boolean,
        'create-base-path' => $boolean,
        'create-subdirs' => $boolean,
        is_mountpoint => { type => 'string' },
        bwlimit => get_standard_option('bwlimit'),
    };
}

sub options {
    my @optional = qw(
        nodes disable content shared prune-backups max-protected-backups format preallocation
        content-dirs snapshot-as-volume-chain mkdir create-base-path create-subdirs is_mountpoint
        bwlimit
    );
    return { path => { fixed => 1 }, map { $_ => { optional => 1 } } @optional };
}

1;
