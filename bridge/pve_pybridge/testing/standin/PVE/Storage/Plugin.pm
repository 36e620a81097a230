# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Storage::Plugin;

# The base class of all storages: this file knows the configuration, the two it requires at the end
# add the methods a plugin may override.

use strict;
use warnings;

use PVE::Cluster;
use PVE::JSONSchema qw(get_standard_option register_format);
use PVE::Storage::Standin;
use PVE::Tools;

use base qw(PVE::SectionConfig);

# Public, and pushed to by third parties (contract 1.6).
our @SHARED_STORAGE = qw(
    iscsi nfs cifs rbd cephfs iscsidirect zfs drbd pbs esxi
);

my @CONTENT_TYPES = qw(images rootdir vztmpl iso backup snippets import none);

my sub absolute_path {
    my ($path, $noerr) = @_;
    return $path if $path =~ m!^(?:/[^/\s]+)+/?$!;
    return undef if $noerr;
    die "value does not look like a valid absolute path\n";
}

my sub one_of {
    my ($what, @names) = @_;
    my %known = map { $_ => 1 } @names;
    return sub {
        my ($value, $noerr) = @_;
        return $value if $known{$value};
        return undef if $noerr;
        die "invalid $what '$value'\n";
    };
}

my sub matching {
    my ($what, $regex) = @_;
    return sub {
        my ($value, $noerr) = @_;
        return $value if $value =~ m/^$regex$/;
        return undef if $noerr;
        die "value does not look like a valid $what\n";
    };
}

register_format('pve-storage-path', \&absolute_path);
register_format('pve-storage-server', matching('server', qr/[\w.:\[\]-]+/));
register_format('pve-storage-vgname', matching('volume group name', qr/\w[\w.-]*\w/));
register_format('pve-storage-portal-dns', matching('portal', qr/[\w.\[\]:-]+/));
register_format('pve-storage-content', one_of('content type', @CONTENT_TYPES));
register_format('pve-storage-format', one_of('format', qw(raw qcow2 vmdk subvol)));
register_format('pve-storage-options', matching('option list', qr/\S*/));
register_format('pve-volume-id', \&parse_volume_id);
register_format('pve-dir-override', matching('content directory', qr/[a-z]+=\S+/));

# The base list of contract 1.4; init() adds what the types bring.
my $private = {
    propertyList => {
        type => { type => 'string', format => 'string' },
        storage => get_standard_option('pve-storage-id'),
        nodes => get_standard_option('pve-node-list', { optional => 1 }),
        content => { type => 'string', format => 'pve-storage-content-list', optional => 1 },
        disable => { type => 'boolean', optional => 1 },
        'prune-backups' => get_standard_option('prune-backups', { optional => 1 }),
        'max-protected-backups' => { type => 'integer', minimum => -1, optional => 1 },
        shared => { type => 'boolean', optional => 1 },
        subdir => { type => 'string', format => 'pve-storage-path', optional => 1 },
        format => get_standard_option('pve-storage-image-format', { optional => 1 }),
        preallocation => {
            type => 'string',
            enum => [qw(off metadata falloc full)],
            optional => 1,
        },
        'content-dirs' =>
            { type => 'string', format => 'pve-dir-override-list', optional => 1 },
        options => { type => 'string', format => 'pve-storage-options', optional => 1 },
        port => { type => 'integer', minimum => 1, maximum => 65535, optional => 1 },
        'snapshot-as-volume-chain' => { type => 'boolean', optional => 1 },
    },
};

sub private { return $private }

my sub plugindata_of {
    my ($type) = @_;
    return $private->{plugindata}->{$type} // {};
}

sub valid_content_types {
    my ($type) = @_;
    my $content = plugindata_of($type)->{content} or return {};
    return $content->[0];
}

sub storage_has_feature {
    my ($type, $feature) = @_;
    my $features = plugindata_of($type)->{features} or return undef;
    return $features->{$feature};
}

# Before version 11 a type had no say: any other secret went to storage.cfg (contract 6).
sub sensitive_properties {
    my ($type) = @_;
    my $own = plugindata_of($type)->{'sensitive-properties'};
    return [sort grep { $own->{$_} } keys %$own]
        if $own && PVE::Storage::Standin::apiver() >= 11;
    return [qw(encryption-key keyring master-pubkey password)];
}

# No order is promised (T-61).
sub content_hash_to_string {
    my ($hash) = @_;
    return join(',', keys %$hash);
}

sub parse_section_header {
    my ($class, $line) = @_;
    my ($type, $storeid) = $line =~ m/^(\S+):\s*(\S+)\s*$/ or return;
    my $error;
    eval { PVE::JSONSchema::parse_storage_id($storeid) };
    $error = $@ if $@;
    return (lc($type), $storeid, $error, {});
}

my sub decode_content {
    my ($type, $value) = @_;
    my $valid = valid_content_types($type);
    my $content = {};
    for my $name (PVE::Tools::split_list($value)) {
        if ($valid->{$name}) {
            $content->{$name} = 1;
        } else {
            warn "storage does not support content type '$name'\n";
        }
    }
    die "unable to combine 'none' with other content types\n"
        if $content->{none} && keys(%$content) > 1;
    # This is the death that makes a section undef (contract 0.3).
    die "storage does not support content type 'none'\n" if !%$content && !$valid->{none};
    return $content;
}

sub decode_value {
    my ($class, $type, $key, $value) = @_;
    if ($key eq 'content') {
        return decode_content($type, $value);
    } elsif ($key eq 'nodes') {
        return { map { PVE::JSONSchema::pve_verify_node_name($_) => 1 }
                PVE::Tools::split_list($value) };
    } elsif ($key eq 'content-dirs') {
        return { map { split(/=/, $_, 2) } PVE::Tools::split_list($value) };
    } elsif ($key eq 'format') {
        my $valid = (plugindata_of($type)->{format} // [{ raw => 1 }])->[0];
        return $value if $valid->{$value};
        warn "storage type '$type' does not support format '$value'\n";
        return undef;
    }
    return $value;
}

sub encode_value {
    my ($class, $type, $key, $value) = @_;
    return content_hash_to_string($value) if $key eq 'content';
    return join(',', keys(%$value)) if $key eq 'nodes';
    return join(',', map { "$_=$value->{$_}" } sort keys %$value) if $key eq 'content-dirs';
    return $value;
}

sub parse_config {
    my ($class, $filename, $raw) = @_;
    my $cfg = $class->SUPER::parse_config($filename, $raw);
    my $ids = $cfg->{ids};

    # There always is a "local", on every node, and it is this directory.
    my $path = '/var/lib/vz';
    my $local = $ids->{local};
    if (!$local || $local->{type} ne 'dir' || ($local->{path} // $path) ne $path) {
        my %content = map { $_ => 1 } qw(backup images iso rootdir snippets vztmpl);
        $local = $ids->{local} = { type => 'dir', content => \%content, priority => 0 };
        $local->{'prune-backups'} = 'keep-all=1';
    }
    $local->{path} = $path;
    delete $local->{nodes};

    my %shared = map { $_ => 1 } @SHARED_STORAGE;
    for my $section (grep { defined } values %$ids) {
        my $type = $section->{type};
        $section->{shared} = 1 if $shared{$type};
        $section->{content} //= { %{ (plugindata_of($type)->{content} // [])->[1] // {} } };
    }
    return $cfg;
}

# The volume's name may contain further colons.
sub parse_volume_id {
    my ($volid, $noerr) = @_;
    return wantarray ? ($1, $2) : $1
        if $volid =~ m/^([A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]):(.+)$/;
    return undef if $noerr;
    die "unable to parse volume ID '$volid'\n";
}

# Hints exist as functions, from version 13 on (contract 4.1).
my $hint = { type => 'boolean', optional => 1 };
my $hints_schema = {
    type => 'object',
    properties => { 'guest-is-windows' => $hint, 'plugin-may-deactivate-volume' => $hint },
    additionalProperties => 0,
};
our $hints_properties;
$hints_properties = $hints_schema->{properties} if PVE::Storage::Standin::apiver() >= 13;
PVE::Storage::Standin::since(
    13,
    is_hint_supported => sub {
        my ($name) = @_;
        return $hints_schema->{properties}->{$name} ? 1 : 0;
    },
    verify_hints => sub {
        my ($hints) = @_;
        return if !defined($hints);
        PVE::JSONSchema::validate($hints, $hints_schema, "internal error - invalid hints\n");
    },
);

require PVE::Storage::StandinBase;
require PVE::Storage::StandinBaseVolumes;

1;
