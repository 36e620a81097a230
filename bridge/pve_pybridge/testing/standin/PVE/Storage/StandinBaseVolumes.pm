# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The base class' methods on one volume; see StandinBase.

package PVE::Storage::Plugin; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

use PVE::Storage::Standin;

my sub parse_image {
    my ($name) = @_;
    my ($format) = $name =~ m/\.(raw|qcow2|vmdk|subvol)$/;
    die "unable to parse volume filename '$name'\n" if !$format;
    return ($format, $name =~ m/^base-/ ? 1 : undef);
}

# The directory layout: 100/vm-100-disk-0.raw, and for a linked clone the base before it (T-22).
sub parse_volname {
    my ($class, $volname) = @_;
    my $name = qr/[^\/\s]+/;
    if ($volname =~ m!^(\d+)/($name)/(\d+)/($name)$!) {
        my ($basevmid, $basename, $vmid, $file) = ($1, $2, $3, $4);
        my (undef, $base_is_base) = parse_image($basename);
        die "unable to parse directory volume name '$volname'\n" if !$base_is_base;
        my ($format, $is_base) = parse_image($file);
        return ('images', $file, $vmid, $basename, $basevmid, $is_base, $format);
    } elsif ($volname =~ m!^(\d+)/($name)$!) {
        my ($vmid, $file) = ($1, $2);
        my ($format, $is_base) = parse_image($file);
        return ('images', $file, $vmid, undef, undef, $is_base, $format);
    } elsif ($volname =~ m!^backup/($name)$!) {
        my $file = $1;
        my ($vmid) = $file =~ m/^vzdump-(?:qemu|lxc)-(\d+)-/;
        return ('backup', $file, $vmid, undef, undef, undef, 'raw');
    } elsif ($volname =~ m!^(iso|vztmpl|snippets|import)/($name)$!) {
        return ($1, $2, undef, undef, undef, undef, 'raw');
    }
    die "unable to parse directory volume name '$volname'\n";
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    my ($vtype, $name, $vmid, undef, undef, undef, $format) = $class->parse_volname($volname);
    my $dir = $class->get_subdir($scfg, $vtype);
    die "can't snapshot this image format\n" if defined($snapname) && $format ne 'qcow2';
    $dir .= "/$vmid" if $vtype eq 'images';
    return wantarray ? ("$dir/$name", $vmid, $vtype) : "$dir/$name";
}

sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    return $class->filesystem_path($scfg, $volname, $snapname);
}

# What follows needs a directory; the stand-in has none to offer. The number is $scfg's place.
my %directory_only = (
    create_base => 2,
    clone_image => 1,
    alloc_image => 2,
    free_image => 2,
    rename_volume => 1,
    volume_snapshot => 1,
    volume_snapshot_rollback => 1,
    volume_snapshot_delete => 1,
    volume_snapshot_info => 1,
    volume_import => 1,
);
for my $method (keys %directory_only) {
    my $scfg_at = $directory_only{$method};
    no strict 'refs'; ## no critic (ProhibitNoStrict): subs by their names
    *{$method} = sub {
        $_[0]->get_subdir($_[$scfg_at], 'images');
        die "'$method' is not implemented by the stand-in's directory storage\n";
    };
}

sub volume_export {
    my ($class, $scfg, $storeid, $fh, $volname, $format) = @_;
    die "volume export format $format not available for $class\n";
}

sub volume_export_formats { return () }
sub volume_import_formats { return () }

# Of a plain file. In list context: size, format, used, parent, ctime.
sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    my $path = $class->filesystem_path($scfg, $volname);
    my $format = ($class->parse_volname($volname))[6];
    my @stat = stat($path) or return undef;
    return wantarray ? ($stat[7], $format, $stat[12] * 512, undef, $stat[10]) : $stat[7];
}

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;
    die "can't resize this image format\n" if $volname !~ m/\.(?:raw|qcow2)$/;
    return 1 if $running;
    truncate($class->filesystem_path($scfg, $volname), $size) or die "resize failed - $!\n";
    return undef;
}

sub volume_rollback_is_possible { return 1 }
sub volume_snapshot_needs_fsfreeze { return 0 }

# Dangerous to inherit: says yes for raw volumes of any storage (contract 2.11).
my %feature = (
    copy => { base => 'raw qcow2 vmdk', current => 'raw qcow2 vmdk', snap => 'qcow2' },
    template => { current => 'raw qcow2 vmdk' },
    clone => { base => 'raw qcow2 vmdk' },
    sparseinit => { base => 'raw qcow2 vmdk', current => 'raw qcow2 vmdk' },
    rename => { current => 'raw qcow2 vmdk' },
    snapshot => { current => 'qcow2', snap => 'qcow2' },
);

sub volume_has_feature {
    my ($class, $scfg, $feature, $storeid, $volname, $snapname, $running, $opts) = @_;
    my ($is_base, $format) = ($class->parse_volname($volname))[5, 6];
    my $targets = ($opts // {})->{valid_target_formats};
    return 0 if $feature eq 'clone' && $targets && !grep { $_ eq 'qcow2' } @$targets;
    return 0 if $feature eq 'rename' && (!$class->can('api') || $class->api() < 10);
    my $key = defined($snapname) ? 'snap' : $is_base ? 'base' : 'current';
    my $formats = ($feature{$feature} // {})->{$key} // '';
    return 1 if grep { $_ eq ($format // 'raw') } split(/ /, $formats);
    return undef;
}

# Deprecated; get_volume_attribute knows the beginning of the text (contract V22).
sub get_volume_notes {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    die "volume notes are not supported for $class\n";
}

sub update_volume_notes {
    my ($class, $scfg, $storeid, $volname, $notes, $timeout) = @_;
    die "volume notes are not supported for $class\n";
}

sub get_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute) = @_;
    return if $attribute ne 'notes';
    my $notes = eval { $class->get_volume_notes($scfg, $storeid, $volname) };
    return $notes if !$@;
    return if $@ =~ m/^volume notes are not supported/;
    die $@;
}

# Dies even after notes were written (T-35).
sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    $class->update_volume_notes($scfg, $storeid, $volname, $value) if $attribute eq 'notes';
    die "attribute '$attribute' is not supported for storage type '$scfg->{type}'\n";
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints) = @_;
    my $path = $class->filesystem_path($scfg, $volname, $snapname);
    die "volume '$storeid:$volname' does not exist\n" if !-e $path;
}

sub deactivate_volume { return }

sub map_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $hints) = @_;
    my ($path) = $class->path($scfg, $volname, $storeid, $snapname);
    return $path;
}

sub unmap_volume { return 1 }

# The node must exist now: stat decides between a file and a device (contract 4.4).
my sub blockdev_options {
    my ($path) = @_;
    if ($path =~ m{^/}) {
        die "could not stat '$path' - $!\n" if !-e $path;
        return { driver => -b _ ? 'host_device' : 'file', filename => $path };
    } elsif ($path =~ m/^(file|host_device):(.+)$/) {
        return { driver => $1, filename => $2 };
    } elsif ($path =~ m/^nbd:unix:([^:]+):exportname=(.+)$/) {
        return { driver => 'nbd', server => { type => 'unix', path => $1 }, export => $2 };
    } elsif ($path =~ m{^(iscsi|iser)://([^/]+)/([^/]+)/(\d+)$}) {
        my $transport = $1 eq 'iser' ? 'iser' : 'tcp';
        return {
            driver => 'iscsi',
            transport => $transport,
            portal => $2,
            target => $3,
            lun => int($4),
        };
    }
    die "no block device options known for path '$path'\n";
}

PVE::Storage::Standin::since(
    12,
    qemu_blockdev_options => sub {
        my ($class, $scfg, $storeid, $volname, $machine_version, $options) = @_;
        my $snapname = ($options // {})->{'snapshot-name'};
        my ($path) = $class->path($scfg, $volname, $storeid, $snapname);
        return blockdev_options($path);
    },
    volume_qemu_snapshot_method => sub {
        my ($class, $storeid, $scfg, $volname) = @_;
        my $format = ($class->parse_volname($volname))[6] // 'raw';
        return $format eq 'qcow2' ? 'qemu' : 'storage';
    },
    rename_snapshot => sub {
        my ($class, $scfg, $storeid, $volname, $source, $target) = @_;
        $class->get_subdir($scfg, 'images');
        die "'rename_snapshot' is not implemented by the stand-in's directory storage\n";
    },
);

1;
