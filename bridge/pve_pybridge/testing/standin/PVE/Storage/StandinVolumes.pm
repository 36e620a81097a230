# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE::Storage's functions on existing volumes. None takes the storage lock here.

package PVE::Storage; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

use PVE::RESTEnvironment;
use PVE::Storage::Plugin;
use PVE::Storage::Standin;

my $APIVER = PVE::Storage::Standin::apiver();

sub parse_volname {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->parse_volname($volname);
}

# The plugin is asked in list context, whatever the caller wants (contract 10).
sub path {
    my ($cfg, $volid, $snapname) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    my ($path, $owner, $vtype) = $plugin->path($scfg, $volname, $storeid, $snapname);
    return wantarray ? ($path, $owner, $vtype) : $path;
}

sub abs_filesystem_path {
    my ($cfg, $volid, $allow_blockdev) = @_;
    my $path = path($cfg, $volid);
    return $path if -f $path || ($allow_blockdev && -b $path);
    die "can't find file for volume '$volid'\n";
}

sub volume_size_info {
    my ($cfg, $volid, $timeout) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->volume_size_info($scfg, $storeid, $volname, $timeout);
}

# Bytes, padded to KiB (T-06).
sub volume_resize {
    my ($cfg, $volid, $size, $running, $snapname) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    $size += (1024 - $size % 1024) % 1024;
    my @snapname = $APIVER >= 15 ? ($snapname) : ();
    $plugin->volume_resize($scfg, $storeid, $volname, $size, $running, @snapname);
    return;
}

sub volume_rollback_is_possible {
    my ($cfg, $volid, $snap, $blockers) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->volume_rollback_is_possible($scfg, $storeid, $volname, $snap, $blockers);
}

sub volume_snapshot {
    my ($cfg, $volid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    $plugin->volume_snapshot($scfg, $storeid, $volname, $snap);
    return;
}

sub volume_snapshot_rollback {
    my ($cfg, $volid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    $plugin->volume_rollback_is_possible($scfg, $storeid, $volname, $snap);
    $plugin->volume_snapshot_rollback($scfg, $storeid, $volname, $snap);
    return;
}

sub volume_snapshot_delete {
    my ($cfg, $volid, $snap, $running) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    $plugin->volume_snapshot_delete($scfg, $storeid, $volname, $snap, $running);
    return;
}

# With nothing but the class (contract 2.6).
sub volume_snapshot_needs_fsfreeze {
    my ($cfg, $volid) = @_;
    my ($plugin) = lookup_volume($cfg, $volid);
    return $plugin->volume_snapshot_needs_fsfreeze();
}

sub volume_snapshot_info {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->volume_snapshot_info($scfg, $storeid, $volname);
}

sub volume_has_feature {
    my ($cfg, $feature, $volid, $snap, $running, $opts) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    my $answer =
        $plugin->volume_has_feature($scfg, $feature, $storeid, $volname, $snap, $running, $opts);
    return $answer;
}

sub get_volume_attribute {
    my ($cfg, $volid, $attribute) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->get_volume_attribute($scfg, $storeid, $volname, $attribute);
}

sub update_volume_attribute {
    my ($cfg, $volid, $attribute, $value) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->update_volume_attribute($scfg, $storeid, $volname, $attribute, $value);
}

sub get_import_metadata {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    die "storage type '$scfg->{type}' can't import guests\n"
        if !$plugin->can('get_import_metadata');
    return $plugin->get_import_metadata($scfg, $volname, $storeid);
}

# Verified here, handed on to plugins from version 13 on; before that the argument doesn't exist.
my sub hint_arguments {
    my ($hints) = @_;
    return () if $APIVER < 13;
    PVE::Storage::Plugin::verify_hints($hints);
    return ($hints);
}

# Storages first. The first failure stops the rest and undoes nothing (T-62).
sub activate_volumes {
    my ($cfg, $vollist, $snapname, @hints) = @_;
    return if !@{ $vollist // [] };
    @hints = hint_arguments($hints[0]);
    my $cache = {};
    my %storeids = map { (parse_volume_id($_))[0] => 1 } @$vollist;
    activate_storage_list($cfg, [sort keys %storeids], $cache);
    for my $volid (@$vollist) {
        my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
        $plugin->activate_volume($storeid, $scfg, $volname, $snapname, $cache, @hints);
    }
    return;
}

# The storages are not activated (T-18); all volumes are tried.
sub deactivate_volumes {
    my ($cfg, $vollist, $snapname) = @_;
    my ($cache, @failed) = ({});
    for my $volid (@{ $vollist // [] }) {
        my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
        eval { $plugin->deactivate_volume($storeid, $scfg, $volname, $snapname, $cache) };
        next if !$@;
        warn $@;
        push @failed, $volid;
    }
    die 'volume deactivation failed: ' . join(' ', @failed) . "\n" if @failed;
    return;
}

sub map_volume {
    my ($cfg, $volid, $snapname, @hints) = @_;
    @hints = hint_arguments($hints[0]);
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->map_volume($storeid, $scfg, $volname, $snapname, @hints);
}

sub unmap_volume {
    my ($cfg, $volid, $snapname) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->unmap_volume($storeid, $scfg, $volname, $snapname);
}

# Contract 4.4. Only the top level is looked at.
my %blockdev_option = (
    file => [qw(filename)],
    host_device => [qw(filename)],
    iscsi => [qw(transport portal target lun initiator-name header-digest timeout)],
    nbd => [qw(server export reconnect-delay open-timeout)],
    rbd => [qw(pool namespace image conf snapshot encrypt user auth-client-required server)],
);

my sub restrict_blockdev {
    my ($blockdev, $volid) = @_;
    my $driver = ($blockdev // {})->{driver}
        // die "no driver in the block device options of volume '$volid'\n";
    my $options = $blockdev_option{$driver} // die "block device driver '$driver' not allowed\n";
    my %allowed = map { $_ => 1 } 'driver', @$options;
    my $kept = {};
    for my $key (sort keys %$blockdev) {
        if ($allowed{$key}) {
            $kept->{$key} = $blockdev->{$key};
        } else {
            my $what = "dropping block device option '$key' of driver '$driver'";
            PVE::RESTEnvironment::log_warn("volume '$volid' - $what");
        }
    }
    return $kept;
}

PVE::Storage::Standin::since(
    12,
    qemu_blockdev_options => sub {
        my ($cfg, $volid, $machine_version, $options) = @_;
        my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
        my ($vtype) = $plugin->parse_volname($volname);
        die "cannot use volume of type '$vtype' as a QEMU blockdevice\n"
            if $vtype !~ m/^(?:images|iso|import)$/;
        my $blockdev = $plugin->qemu_blockdev_options(
            $scfg, $storeid, $volname, $machine_version, $options,
        );
        return restrict_blockdev($blockdev, $volid);
    },
    volume_qemu_snapshot_method => sub {
        my ($cfg, $volid) = @_;
        my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
        return $plugin->volume_qemu_snapshot_method($storeid, $scfg, $volname);
    },
);

1;
