# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Cluster;

# The cluster file system as a plain directory, PVE_PYBRIDGE_ETC_PVE. Also runs below the genuine
# storage modules where there is no cluster, hence the names at the end and core Perl only.

use strict;
use warnings;

use Fcntl qw(:DEFAULT);
use JSON;
use POSIX ();
use Time::HiRes ();

use base 'Exporter';
our @EXPORT_OK = qw(
    cfs_register_file cfs_read_file cfs_write_file cfs_lock_file cfs_lock_storage cfs_update
    get_vmlist get_nodelist get_clinfo check_cfs_quorum check_cfs_is_mounted
);

my sub clean { return $_[0] =~ m/\A(.*)\z/s ? $1 : '' }

my $root = clean($ENV{PVE_PYBRIDGE_ETC_PVE} // '/etc/pve');
my $lock_dir = clean($ENV{PVE_STANDIN_LOCK_DIR} // '/var/lock/pve-manager-standin');
my $lock_seconds = clean($ENV{PVE_STANDIN_LOCK_SECONDS} // 60);

# A lock nobody gave back is void after this time, as in the real file system (contract 7.3).
my $LOCK_EXPIRES = 120;

sub lock_directory {
    my $path = '';
    for my $part (split(m{/}, $lock_dir)) {
        $path .= "$part/";
        mkdir($path, 0755) if !-d $path;
    }
    return $lock_dir;
}

my (%handler, %cache);

sub cfs_register_file {
    my ($name, $parser, $writer) = @_;
    die "file '$name' already registered\n" if $handler{$name};
    $handler{$name} = { parser => $parser, writer => $writer };
}

my sub read_raw {
    my ($name) = @_;
    open(my $fh, '<', "$root/$name") or return undef;
    local $/ = undef;
    my $text = <$fh> // '';
    close($fh);
    return $text;
}

# Every reader gets the same structure until the text changes (contract 1.6): who changes it
# changes it for all.
sub cfs_read_file {
    my ($name) = @_;
    my $parser = ($handler{$name} // die "no parser for file '$name'\n")->{parser};
    my $raw = read_raw($name);
    my $key = defined($raw) ? "+$raw" : '-';
    my $entry = $cache{$name};
    if (!$entry || $entry->{key} ne $key) {
        $entry = $cache{$name} = { key => $key, data => $parser->($name, $raw) };
    }
    return $entry->{data};
}

sub cfs_write_file {
    my ($name, $data) = @_;
    my $text = ($handler{$name} // die "no writer for file '$name'\n")->{writer}->($name, $data);
    my $path = "$root/$name";
    my $temp = "$path.tmp.$$";
    # World-readable: the web server's user reads it, which is why secrets don't belong in it.
    sysopen(my $fh, $temp, O_WRONLY | O_CREAT | O_TRUNC, 0644) or die "can't write '$temp': $!\n";
    my $written = print {$fh} $text;
    die "can't write '$temp': $!\n" if !close($fh) || !$written;
    rename($temp, $path) or die "can't rename '$temp': $!\n";
    delete $cache{$name};
}

my sub acquire {
    my ($dir, $timeout) = @_;
    my $deadline = Time::HiRes::time() + $timeout;
    for (my $tries = 0; !mkdir($dir, 0700); $tries++) {
        my $failure = $!;
        die "can't create '$dir': $failure\n" if !$!{EEXIST};
        my $age = time() - ((stat($dir))[9] // time());
        rmdir($dir) if $age > $LOCK_EXPIRES;
        die "got lock request timeout\n" if Time::HiRes::time() > $deadline;
        print STDERR "trying to acquire cfs lock ...\n" if !$tries;
        Time::HiRes::sleep(0.05);
    }
}

# Made with mkdir, so not re-entrant; the code in it is cut off by an alarm unless something,
# typically run_command, clears that (contract 0.5). Errors are left in $@, objects untouched.
my sub cfs_lock {
    my ($id, $timeout, $code, @param) = @_;
    my $dir = lock_directory() . "/cfs-" . clean($id);
    my ($res, $locked);
    my $begin = Time::HiRes::time();
    my $pending = Time::HiRes::alarm(0);
    eval {
        eval { acquire($dir, $timeout // 10); $locked = 1; };
        die "error with cfs lock '$id': $@" if $@;
        local $SIG{ALRM} = sub { die "'$id'-locked command timed out - aborting\n" };
        Time::HiRes::alarm($lock_seconds);
        eval { $res = $code->(@param) };
        my $err = $@;
        Time::HiRes::alarm(0);
        die $err if $err;
    };
    my $err = $@;
    rmdir($dir) if $locked;
    if ($pending) {
        my $left = $pending - (Time::HiRes::time() - $begin);
        Time::HiRes::alarm($left > 0.001 ? $left : 0.001);
    }
    $@ = $err; ## no critic (RequireLocalizedPunctuationVars): for the caller
    return $err ? undef : $res;
}

sub cfs_lock_storage {
    my ($storeid, $timeout, $code, @param) = @_;
    return cfs_lock("storage-$storeid", $timeout, $code, @param);
}

# Forget the parsed copy first, so that the code sees the file, and after a failure, so that
# nobody sees what was half changed.
sub cfs_lock_file {
    my ($name, $timeout, $code, @param) = @_;
    my $id = "file-$name" =~ s/[.\/]/_/gr;
    my $fresh = sub { delete $cache{$name}; return $code->(@param) };
    my $res = cfs_lock($id, $timeout, $fresh);
    delete $cache{$name} if $@;
    return $res;
}

# {"version":1,"ids":{"100":{"node":"a","type":"qemu"}}}; no file, no guests.
sub get_vmlist {
    my $raw = read_raw('.vmlist');
    return defined($raw) && $raw =~ m/\S/ ? decode_json($raw) : { version => 0, ids => {} };
}

sub get_nodelist {
    my ($name) = (POSIX::uname())[1] =~ m/^([A-Za-z0-9-]+)/;
    return [$name // 'localhost'];
}

sub get_clinfo { return {} }
sub cfs_update { return }
sub check_cfs_quorum { return 1 }
sub check_cfs_is_mounted { return 1 }

1;
