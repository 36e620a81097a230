# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The base class' methods on a whole storage. What contract 2.11 calls safe to inherit behaves;
# what makes sense for a directory only dies as it does without a path.

package PVE::Storage::Plugin; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

use PVE::Cluster;
use PVE::Storage::Standin;
use PVE::Tools;

sub check_connection { return 1 }
sub deactivate_storage { return }
sub storage_can_replicate { return 0 }

sub on_add_hook { return undef }
sub on_update_hook { return undef }
sub on_delete_hook { return undef }

# One process per node for a local storage and no time limit, the whole cluster and 60 s for a
# shared one (contract 0.5, 7.3).
sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $code, @param) = @_;
    my $res;
    if ($shared) {
        $res = PVE::Cluster::cfs_lock_storage($storeid, $timeout, $code, @param);
    } else {
        my $path = PVE::Cluster::lock_directory() . "/pve-storage-$storeid";
        $res = PVE::Tools::lock_file($path, $timeout, $code, @param);
    }
    die $@ if $@;
    return $res;
}

my %subdir = (
    images => 'images',
    rootdir => 'private',
    iso => 'template/iso',
    vztmpl => 'template/cache',
    backup => 'dump',
    snippets => 'snippets',
    import => 'import',
);

sub get_vtype_subdirs { return {%subdir} }

sub get_subdir {
    my ($class, $scfg, $vtype) = @_;
    my $path = $scfg->{path} // die "storage definition has no path\n";
    die "unknown vtype '$vtype'\n" if !$subdir{$vtype};
    my $own = ($scfg->{'content-dirs'} // {})->{$vtype};
    return "$path/" . ($own // $subdir{$vtype});
}

PVE::Storage::Standin::since(
    11,
    config_aware_base_mkdir => sub {
        my ($class, $scfg, $path) = @_;
        return if -d $path || !($scfg->{'create-base-path'} // $scfg->{mkdir} // 1);
        mkdir($path) or die "unable to create '$path' - $!\n";
    },
    new_backup_provider => sub {
        my ($class, $scfg, $storeid, $log_function) = @_;
        die "not implemented by the plugin of storage '$storeid'\n";
    },
);

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    my $path = $scfg->{path} // die "storage definition has no path\n";
    die "unable to activate storage '$storeid' - directory '$path' does not exist\n" if !-d $path;
}

# total, available, used, active: available comes before used (T-04).
sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    my $path = $scfg->{path} // die "storage definition has no path\n";
    my @figures;
    PVE::Tools::run_command(
        ['df', '-P', '-B1', '--', $path],
        timeout => 2,
        outfunc =>
            sub { @figures = ($1, $3, $2) if $_[0] =~ m/\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%/ },
    );
    return @figures ? (@figures, 1) : undef;
}

my sub formats {
    my ($scfg) = @_;
    my ($valid, $default) = ({ raw => 1 }, 'raw');
    my $data = PVE::Storage::Plugin->private()->{plugindata}->{ $scfg->{type} } // {};
    ($valid, $default) = @{ $data->{format} } if $data->{format};
    my $wanted = $scfg->{format};
    $default = $wanted if defined($wanted) && $valid->{$wanted};
    return { default => $default, valid => {%$valid} };
}

PVE::Storage::Standin::since(
    12,
    get_formats => sub {
        my ($class, $scfg, $storeid) = @_;
        return formats($scfg);
    },
);

# A function, and gone when get_formats came.
PVE::Storage::Standin::before(
    12,
    default_format => sub {
        my ($scfg) = @_;
        my $formats = formats($scfg);
        return wantarray ? @{$formats}{qw(default valid)} : $formats->{default};
    },
);

PVE::Storage::Standin::since(
    13,
    on_update_hook_full => sub {
        my ($class, $storeid, $scfg, $update, $delete, $sensitive) = @_;
        return $class->on_update_hook($storeid, $update, %$sensitive);
    },
);

PVE::Storage::Standin::since(
    14,
    get_identity => sub {
        my ($class, $scfg, $storeid) = @_;
        die "storage '$storeid' has no identity - not implemented by its plugin\n";
    },
);

sub list_images {
    my ($class, $storeid, $scfg, $vmid, $vollist, $cache) = @_;
    $class->get_subdir($scfg, 'images');
    return [];
}

# The guests' own kind tells disks from container volumes; an unknown owner counts as a virtual
# machine.
sub list_volumes {
    my ($class, $storeid, $scfg, $vmid, $content_types) = @_;
    my %wanted = map { $_ => 1 } @$content_types;
    return [] if !$wanted{images} && !$wanted{rootdir};
    my $guests = PVE::Cluster::get_vmlist()->{ids} // {};
    my @res;
    for my $info (@{ $class->list_images($storeid, $scfg, $vmid) }) {
        my $guest = defined($info->{vmid}) ? $guests->{ $info->{vmid} } : undef;
        my $content = $guest && $guest->{type} eq 'lxc' ? 'rootdir' : 'images';
        push @res, { %$info, content => $content } if $wanted{$content};
    }
    return \@res;
}

# Lowest free number. Racy outside the storage lock (T-47).
sub find_free_diskname {
    my ($class, $storeid, $scfg, $vmid, $fmt, $add_suffix) = @_;
    my %used;
    for my $info (@{ $class->list_images($storeid, $scfg, $vmid) }) {
        $used{$1} = 1 if $info->{volid} =~ m/(?:vm|base|subvol|basevol)-\Q$vmid\E-disk-(\d+)/;
    }
    my ($number) = grep { !$used{$_} } 0 .. 1023;
    die "unable to allocate an image name for VM $vmid in storage '$storeid'\n"
        if !defined($number);
    my $prefix = ($fmt // '') eq 'subvol' ? 'subvol' : 'vm';
    return "$prefix-$vmid-disk-$number" . ($add_suffix ? ".$fmt" : '');
}

sub prune_backups {
    my ($class, $scfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;
    $class->get_subdir($scfg, 'backup');
    return [];
}

1;
