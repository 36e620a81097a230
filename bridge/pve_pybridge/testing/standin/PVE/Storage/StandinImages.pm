# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE::Storage's functions that create, rename and remove images: activate the storage, then call
# the plugin under the storage's lock.

package PVE::Storage; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

use PVE::RPCEnvironment;
use PVE::Storage::Plugin;
use PVE::Storage::Standin;

# The plugin's method in scalar context, under the lock that its own class provides.
my sub call_locked {
    my ($plugin, $scfg, $storeid, $method, @args) = @_;
    my $code = sub { my $res = $plugin->$method(@args); return $res };
    return $plugin->cluster_lock_storage($storeid, $scfg->{shared}, undef, $code);
}

# The one function with sizes in KiB, possibly fractional (T-05).
sub vdisk_alloc {
    my ($cfg, $storeid, $vmid, $fmt, $name, $size) = @_;
    die "no VMID specified\n" if !$vmid;
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    activate_storage($cfg, $storeid);
    $fmt = storage_default_format($cfg, $storeid) if !$fmt;
    my @args = ($storeid, $scfg, $vmid, $fmt, $name, $size);
    my $old_umask = umask(umask() | oct('037'));
    my $volname = eval { call_locked($plugin, $scfg, $storeid, 'alloc_image', @args) };
    my $err = $@;
    umask($old_umask);
    die $err if $err;
    return "$storeid:$volname";
}

sub vdisk_clone {
    my ($cfg, $volid, $vmid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    activate_storage($cfg, $storeid);
    my @args = ($scfg, $storeid, $volname, $vmid, $snap);
    return "$storeid:" . call_locked($plugin, $scfg, $storeid, 'clone_image', @args);
}

sub vdisk_create_base {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    activate_storage($cfg, $storeid);
    my @args = ($storeid, $scfg, $volname);
    return "$storeid:" . call_locked($plugin, $scfg, $storeid, 'create_base', @args);
}

# Only relations that show in the names are seen (T-22).
my sub base_is_used {
    my ($plugin, $scfg, $storeid, $volname) = @_;
    my ($vtype, $name, $vmid, undef, undef, $is_base) = $plugin->parse_volname($volname);
    return 0 if !$is_base;
    for my $info (@{ $plugin->list_images($storeid, $scfg) // [] }) {
        my (undef, $other) = parse_volume_id($info->{volid});
        my (undef, undef, undef, $basename, $basevmid) = eval { $plugin->parse_volname($other) };
        next if !defined($basename) || $basename ne $name;
        return 1 if !defined($basevmid) || !defined($vmid) || $basevmid == $vmid;
    }
    return 0;
}

sub volume_is_base_and_used {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return base_is_used($plugin, $scfg, $storeid, $volname);
}

# A closure returned by the plugin runs later, in a worker, outside the lock (contract V5).
sub vdisk_free {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    activate_storage($cfg, $storeid);
    my $free = sub {
        die "base volume '$volname' is still in use by linked clones\n"
            if base_is_used($plugin, $scfg, $storeid, $volname);
        my ($is_base, $format) = ($plugin->parse_volname($volname))[5, 6];
        my $res = $plugin->free_image($storeid, $scfg, $volname, $is_base, $format);
        return $res;
    };
    my $cleanup = $plugin->cluster_lock_storage($storeid, $scfg->{shared}, undef, $free);
    return if ref($cleanup) ne 'CODE';
    my $env = PVE::RPCEnvironment::get();
    $env->fork_worker('imgdel', undef, $env->get_user(), $cleanup);
    return;
}

sub rename_volume {
    my ($cfg, $source_volid, $target_vmid, $target_volname) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $source_volid);
    activate_storage($cfg, $storeid);
    # From index 3, the base's name, and not from 2: as for real (T-46).
    $target_vmid = ($plugin->parse_volname($volname))[3] if !$target_vmid;
    my @args = ($scfg, $storeid, $volname, $target_vmid, $target_volname);
    return call_locked($plugin, $scfg, $storeid, 'rename_volume', @args);
}

PVE::Storage::Standin::since(
    12,
    rename_snapshot => sub {
        my ($cfg, $volid, $source_snap, $target_snap) = @_;
        my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
        activate_storage($cfg, $storeid);
        my @args = ($scfg, $storeid, $volname, $source_snap, $target_snap);
        return call_locked($plugin, $scfg, $storeid, 'rename_snapshot', @args);
    },
);

1;
