# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::API2::Storage::Config;

# Adding, changing and removing storages: what pvesm and the web interface call. Everything
# happens under the lock of storage.cfg and so within 60 seconds (contract 2.2, 6).

use strict;
use warnings;

use PVE::Exception qw(raise_param_exc);
use PVE::JSONSchema;
use PVE::SectionConfig;
use PVE::Storage;
use PVE::Storage::Plugin;
use PVE::Storage::Standin;
use PVE::Tools qw(extract_param extract_sensitive_params split_list);

# The check the API schema does for real.
my sub verify_parameters {
    my ($param, $schema) = @_;
    PVE::JSONSchema::validate($param, $schema);
}

# Secrets never reach the section, which goes to a file that others may read.
my sub split_secrets {
    my ($type, $param, $delete) = @_;
    my $names = PVE::Storage::Plugin::sensitive_properties($type);
    return %{ extract_sensitive_params($param, $names, $delete) };
}

my sub add_storage {
    my ($plugin, $storeid, $scfg, $secrets) = @_;
    my $cfg = PVE::Storage::config();
    die "storage ID '$storeid' already defined\n" if exists($cfg->{ids}->{$storeid});
    $cfg->{ids}->{$storeid} = $scfg;

    # Its own failure is not followed by on_delete_hook, that of the activation is.
    my $shown = $plugin->on_add_hook($storeid, $scfg, %$secrets);
    eval {
        PVE::Storage::activate_storage($cfg, $storeid)
            if PVE::Storage::storage_check_enabled($cfg, $storeid, undef, 1);
    };
    if (my $err = $@) {
        eval { $plugin->on_delete_hook($storeid, $scfg) };
        warn "$@\n" if $@;
        die $err;
    }
    PVE::Storage::write_config($cfg);
    return $shown;
}

sub create {
    my ($class, $given) = @_;
    my $param = {%$given};
    verify_parameters($param, PVE::Storage::Plugin->createSchema());
    my ($type, $storeid) = map { extract_param($param, $_) } qw(type storage);
    raise_param_exc({ type => 'property is missing and it is not optional' }) if !defined($type);
    my %secrets = split_secrets($type, $param, []);
    my $plugin = PVE::Storage::Plugin->lookup($type);
    my $scfg = $plugin->check_config($storeid, $param, 1, 1);

    my $shown;
    PVE::Storage::lock_storage_config(
        sub { $shown = add_storage($plugin, $storeid, $scfg, \%secrets) },
        'create storage failed',
    );
    return { storage => $storeid, type => $type, ($shown ? (config => $shown) : ()) };
}

my sub check_deletions {
    my ($options, $delete) = @_;
    for my $name (@$delete) {
        my $option = $options->{$name} or die "no such option '$name'\n";
        die "unable to delete required option '$name'\n" if !$option->{optional};
        die "unable to delete fixed option '$name'\n" if $option->{fixed};
    }
}

# Which hook depends on the host and on what the plugin says it was written for.
my sub call_update_hook {
    my ($plugin, $storeid, $scfg, $update, $delete, $secrets) = @_;
    return $plugin->on_update_hook($storeid, $update, %$secrets)
        if PVE::Storage::Standin::apiver() < 13 || !$plugin->can('api') || $plugin->api() < 13;
    my $names = @$delete ? $delete : undef;
    return $plugin->on_update_hook_full($storeid, $scfg, $update, $names, $secrets);
}

my sub change_storage {
    my ($storeid, $param, $delete, $digest) = @_;
    my $cfg = PVE::Storage::config();
    PVE::SectionConfig::assert_if_modified($cfg, $digest);
    my $scfg = PVE::Storage::storage_config($cfg, $storeid);
    my $type = $scfg->{type};
    my $plugin = PVE::Storage::Plugin->lookup($type);

    my %secrets = split_secrets($type, $param, $delete);
    my $update = $plugin->check_config($storeid, $param, 0, 1);
    check_deletions($plugin->private()->{options}->{$type}, $delete);
    my $shown = call_update_hook($plugin, $storeid, $scfg, $update, $delete, \%secrets);

    delete $scfg->{$_} for @$delete;
    $scfg->{$_} = $update->{$_} for keys %$update;
    PVE::Storage::write_config($cfg);
    return ($type, $shown);
}

sub update {
    my ($class, $given) = @_;
    my $param = {%$given};
    verify_parameters($param, PVE::Storage::Plugin->updateSchema());
    my ($storeid, $delete, $digest) =
        map { extract_param($param, $_) } qw(storage delete digest);
    my @delete = split_list($delete);

    my ($type, $shown);
    PVE::Storage::lock_storage_config(
        sub { ($type, $shown) = change_storage($storeid, $param, \@delete, $digest) },
        'update storage failed',
    );
    return { storage => $storeid, type => $type, ($shown ? (config => $shown) : ()) };
}

my sub assert_not_a_base {
    my ($cfg, $storeid) = @_;
    for my $other (sort keys %{ $cfg->{ids} }) {
        my $base = ($cfg->{ids}->{$other} // {})->{base} // next;
        my ($base_storeid) = PVE::Storage::parse_volume_id($base);
        die "storage '$storeid' is used as base of storage '$other'\n"
            if $base_storeid eq $storeid;
    }
}

# The volumes stay, and nothing is deactivated.
sub delete { ## no critic (ProhibitBuiltinHomonyms): PVE's name
    my ($class, $param) = @_;
    my $storeid = $param->{storage};
    PVE::Storage::lock_storage_config(
        sub {
            my $cfg = PVE::Storage::config();
            my $scfg = PVE::Storage::storage_config($cfg, $storeid);
            assert_not_a_base($cfg, $storeid);
            my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
            $plugin->on_delete_hook($storeid, $scfg);
            CORE::delete $cfg->{ids}->{$storeid};
            PVE::Storage::write_config($cfg);
        },
        'delete storage failed',
    );
    return undef;
}

1;
