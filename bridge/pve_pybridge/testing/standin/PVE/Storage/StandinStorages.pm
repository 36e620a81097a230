# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE::Storage's functions on storages: activation, status, listings.

package PVE::Storage; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

use PVE::Storage::Plugin;
use PVE::Storage::Standin;

# Once per storage and operation; the cache is shared by all storages of it, and plugins keep
# their own keys in it (contract V3).
sub activate_storage {
    my ($cfg, $storeid, $cache) = @_;
    $cache //= {};
    my $scfg = storage_check_enabled($cfg, $storeid);
    return if $cache->{activated}->{$storeid};
    $cache->{uevent_seqnum} //= 0;

    my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
    # The option with this name is special (T-48).
    if ($scfg->{base}) {
        my ($base_storeid) = parse_volume_id($scfg->{base});
        activate_storage($cfg, $base_storeid, $cache);
    }
    my $online = eval { $plugin->check_connection($storeid, $scfg) };
    die "connection check for storage '$storeid' failed - $@" if $@;
    die "storage '$storeid' is not online\n" if !$online;
    $plugin->activate_storage($storeid, $scfg, $cache);
    $cache->{activated}->{$storeid} = 1;
    return;
}

sub activate_storage_list {
    my ($cfg, $storeid_list, $cache) = @_;
    $cache //= {};
    activate_storage($cfg, $_, $cache) for @$storeid_list;
    return;
}

sub deactivate_storage {
    my ($cfg, $storeid) = @_;
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    $plugin->deactivate_storage($storeid, $scfg, {});
    return;
}

sub storage_can_replicate {
    my ($cfg, $storeid, $format) = @_;
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    return $plugin->storage_can_replicate($scfg, $storeid, $format);
}

# The formats without asking the storage, for releases that have no get_formats.
my sub type_formats {
    my ($scfg) = @_;
    return PVE::Storage::Plugin::default_format($scfg);
}

sub storage_default_format {
    my ($cfg, $storeid) = @_;
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    return scalar(type_formats($scfg)) if PVE::Storage::Standin::apiver() < 12;
    my $formats = $plugin->get_formats($scfg, $storeid);
    return $formats->{default};
}

my sub wanted_storage {
    my ($scfg, $content) = @_;
    return 1 if !defined($content);
    return grep { $scfg->{content}->{$_} } PVE::Tools::split_list($content);
}

my sub format_entry {
    my ($plugin, $scfg, $storeid) = @_;
    if (PVE::Storage::Standin::apiver() < 12) {
        my ($default, $valid) = type_formats($scfg);
        return [$valid, $default];
    }
    my $formats = $plugin->get_formats($scfg, $storeid);
    return [@{$formats}{qw(valid default)}];
}

# What pvestatd asks every 10 seconds: one bad storage is a warning and inactive, an unparsable
# section is the end of all (contract 0.3).
sub storage_info {
    my ($cfg, $content, $includeformat) = @_;
    my ($info, $cache) = ({}, {});
    for my $storeid (sort(storage_ids($cfg))) {
        my $enabled = storage_check_enabled($cfg, $storeid, undef, 1);
        my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
        next if !wanted_storage($scfg, $content);
        my $entry = $info->{$storeid} = {
            type => $scfg->{type},
            content => PVE::Storage::Plugin::content_hash_to_string($scfg->{content}),
            shared => $scfg->{shared} ? 1 : 0,
            enabled => $enabled ? 1 : 0,
            total => 0,
            avail => 0,
            used => 0,
            active => 0,
        };
        if ($includeformat) {
            my $plugindata = $plugin->plugindata();
            $entry->{format} = format_entry($plugin, $scfg, $storeid);
            $entry->{select_existing} = 1 if $plugindata->{select_existing};
        }
        next if !$enabled;
        my @status = eval {
            activate_storage($cfg, $storeid, $cache);
            $plugin->status($storeid, $scfg, $cache);
        };
        if ($@) {
            warn $@;
            next;
        }
        my ($total, $avail, $used, $active) = @status;
        next if !$active;
        # int() of an undef figure warns, as it does for real (T-04).
        $entry->{total} = int($total);
        $entry->{avail} = int($avail);
        $entry->{used} = int($used);
        $entry->{active} = $active;
    }
    return $info;
}

# The images of the given volumes, of one storage, or of all; one failing storage fails the lot
# (T-45).
sub vdisk_list {
    my ($cfg, $storeid, $vmid, $vollist, $ctype) = @_;
    my %wanted;
    if ($vollist) {
        $wanted{$_} = 1 for map { (parse_volume_id($_))[0] } @$vollist;
    } elsif ($storeid) {
        storage_check_enabled($cfg, $storeid);
        $wanted{$storeid} = 1;
    } else {
        my @types = defined($ctype) ? ($ctype) : qw(images rootdir);
        for my $id (storage_ids($cfg)) {
            my $scfg = storage_check_enabled($cfg, $id, undef, 1) or next;
            $wanted{$id} = 1 if grep { $scfg->{content}->{$_} } @types;
        }
    }
    my ($res, $cache) = ({}, {});
    activate_storage_list($cfg, [sort keys %wanted], $cache);
    for my $id (sort keys %wanted) {
        my ($plugin, $scfg) = lookup_storage($cfg, $id);
        my $list = $plugin->list_images($id, $scfg, $vmid, $vollist, $cache) // [];
        @$list = sort { $a->{volid} cmp $b->{volid} } @$list;
        $res->{$id} = $list;
    }
    return $res;
}

sub volume_list {
    my ($cfg, $storeid, $vmid, $content) = @_;
    my $types = defined($content) ? [$content] : [qw(images rootdir vztmpl iso backup snippets)];
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    my @types = grep { $scfg->{content}->{$_} } @$types;
    return [] if !@types;
    activate_storage($cfg, $storeid);
    my $list = $plugin->list_volumes($storeid, $scfg, $vmid, \@types) // [];
    @$list = sort { $a->{volid} cmp $b->{volid} } @$list;
    return $list;
}

sub template_list {
    my ($cfg, $storeid, $tt) = @_;
    die "unknown template type '$tt'\n" if $tt && $tt !~ m/^(?:iso|vztmpl|backup|snippets|import)$/;
    my $res = {};
    for my $id ($storeid ? $storeid : sort(storage_ids($cfg))) {
        my $scfg = storage_check_enabled($cfg, $id, undef, !$storeid) or next;
        my @types = $tt ? ($tt) : grep { $scfg->{content}->{$_} } qw(iso vztmpl backup snippets);
        my @lists = map { @{ volume_list($cfg, $id, undef, $_) } } @types;
        $res->{$id} = \@lists if @lists;
    }
    return $res;
}

my %content_dir = (
    get_iso_dir => 'iso',
    get_vztmpl_dir => 'vztmpl',
    get_backup_dir => 'backup',
    get_import_dir => 'import',
    get_private_dir => 'rootdir',
    get_image_dir => 'images',
);
for my $name (keys %content_dir) {
    my $vtype = $content_dir{$name};
    no strict 'refs'; ## no critic (ProhibitNoStrict): subs by their names
    *{$name} = sub {
        my ($cfg, $storeid, $vmid) = @_;
        my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
        my $dir = $plugin->get_subdir($scfg, $vtype);
        return defined($vmid) && $vtype =~ m/^(?:images|rootdir)$/ ? "$dir/$vmid" : $dir;
    };
}

sub prune_backups {
    my ($cfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;
    my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
    my $log = $logfunc // sub { print "$_[1]\n" };
    return $plugin->prune_backups($scfg, $storeid, $keep, $vmid, $type, $dryrun, $log);
}

PVE::Storage::Standin::since(
    11,
    new_backup_provider => sub {
        my ($cfg, $storeid, $log_function) = @_;
        my ($plugin, $scfg) = lookup_storage($cfg, $storeid);
        return $plugin->new_backup_provider($scfg, $storeid, $log_function);
    },
);

1;
