# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Storage;

# The entry points of the rest of PVE into storage plugins: same names, arguments, locks and
# contexts. This file loads the plugins and reads the configuration; the modules it requires at
# the end hold the operations.

use strict;
use warnings;

use PVE::Cluster qw(cfs_lock_file cfs_read_file cfs_register_file cfs_write_file);
use PVE::INotify;
use PVE::Storage::Plugin;
use PVE::Storage::Standin;
use PVE::Tools;

# Callable while plugins load: they negotiate by them (contract 1.1).
use constant {
    APIVER => PVE::Storage::Standin::apiver(),
    APIAGE => PVE::Storage::Standin::apiage(),
};

use PVE::Storage::DirPlugin;
PVE::Storage::DirPlugin->register();

my sub load_plugin {
    my ($name) = @_;
    my $file = "PVE/Storage/Custom/$name.pm";
    my $class = "PVE::Storage::Custom::$name";
    require $file;
    die "not derived from PVE::Storage::Plugin\n" if !$class->isa('PVE::Storage::Plugin');
    die "does not provide an api() method\n" if !$class->can('api');
    my $version = $class->api();
    die "implements an API version newer than current ($version > " . APIVER . ")\n"
        if $version > APIVER;
    die "API version too old, please update the plugin ($version < " . (APIVER - APIAGE) . ")\n"
        if $version < APIVER - APIAGE;
    $class->register();
    # One line on STDERR of every command that loads this module (T-31).
    warn "Plugin \"$class\" is implementing an older storage API, an upgrade is recommended\n"
        if $version != APIVER;
}

# The real loader knows one directory only, this one takes all of @INC so that a checkout works.
# Each file has its own eval: a bad plugin costs its types, not the process.
my %seen;
for my $dir (grep { !ref && -d "$_/PVE/Storage/Custom" } @INC) {
    PVE::Tools::dir_glob_foreach(
        "$dir/PVE/Storage/Custom",
        '.*\.pm',
        sub {
            my ($file) = @_;
            my ($name) = $file =~ m/^(.*)\.pm$/;
            return if $seen{$name}++;
            eval { load_plugin($name) };
            warn "Error loading storage plugin \"PVE::Storage::Custom::$name\": $@" if $@;
        },
    );
}

# Not in an eval, on purpose: this death takes every PVE process down (contract 0.1, T-01).
PVE::Storage::Plugin->init();

cfs_register_file(
    'storage.cfg',
    sub { PVE::Storage::Plugin->parse_config(@_) },
    sub { PVE::Storage::Plugin->write_config(@_) },
);

sub config { return cfs_read_file('storage.cfg') }

sub write_config {
    my ($cfg) = @_;
    cfs_write_file('storage.cfg', $cfg);
}

sub lock_storage_config {
    my ($code, $errmsg) = @_;
    cfs_lock_file('storage.cfg', undef, $code);
    my $err = $@ or return;
    die $err if ref($err) || !$errmsg;
    die "$errmsg: $err";
}

sub storage_config {
    my ($cfg, $storeid, $noerr) = @_;
    die "no storage ID specified\n" if !$storeid;
    my $scfg = $cfg->{ids}->{$storeid};
    die "storage '$storeid' does not exist\n" if !$noerr && !$scfg;
    return $scfg;
}

sub storage_check_node {
    my ($cfg, $storeid, $node, $noerr) = @_;
    my $scfg = storage_config($cfg, $storeid);
    return $scfg if !$scfg->{nodes};
    $node = PVE::INotify::nodename() if !$node || $node eq 'localhost';
    return $scfg if $scfg->{nodes}->{$node};
    return undef if $noerr;
    die "storage '$storeid' is not available on node '$node'\n";
}

sub storage_check_enabled {
    my ($cfg, $storeid, $node, $noerr) = @_;
    my $scfg = storage_config($cfg, $storeid);
    if ($scfg->{disable}) {
        return undef if $noerr;
        die "storage '$storeid' is disabled\n";
    }
    return storage_check_node($cfg, $storeid, $node, $noerr);
}

sub storage_ids {
    my ($cfg) = @_;
    return keys %{ $cfg->{ids} };
}

# A property of the type, not of the storage (contract 1.3).
sub storage_has_feature {
    my ($cfg, $storeid, $feature) = @_;
    my $scfg = storage_config($cfg, $storeid);
    return PVE::Storage::Plugin::storage_has_feature($scfg->{type}, $feature);
}

sub parse_volume_id {
    my ($volid, $noerr) = @_;
    return PVE::Storage::Plugin::parse_volume_id($volid, $noerr);
}

# What nearly every function starts with.
sub lookup_storage {
    my ($cfg, $storeid) = @_;
    my $scfg = storage_config($cfg, $storeid);
    return (PVE::Storage::Plugin->lookup($scfg->{type}), $scfg);
}

sub lookup_volume {
    my ($cfg, $volid) = @_;
    my ($storeid, $volname) = parse_volume_id($volid);
    return (lookup_storage($cfg, $storeid), $storeid, $volname);
}

require PVE::Storage::StandinStorages;
require PVE::Storage::StandinVolumes;
require PVE::Storage::StandinImages;
require PVE::Storage::StandinTransfer;

1;
