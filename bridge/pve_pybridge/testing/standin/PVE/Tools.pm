# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Tools;

# The general helpers that storage code and plugins use. Only names the contract mentions.

use strict;
use warnings;

use Fcntl qw(:DEFAULT :flock);
use JSON;
use POSIX ();
use Time::HiRes ();

use PVE::ToolsRun;

use base 'Exporter';
our @EXPORT_OK = qw(
    split_list lock_file dir_glob_foreach extract_param extract_sensitive_params trim
    file_get_contents file_set_contents run_command run_with_timeout run_fork_with_timeout
);

sub run_command { return PVE::ToolsRun::run_command(@_) }

sub trim {
    my ($text) = @_;
    return $text =~ s/^\s+|\s+$//gr;
}

sub split_list {
    my ($text) = @_;
    return grep { length } split(/[,;\s\0]+/, $text // '');
}

sub extract_param {
    my ($param, $key) = @_;
    return delete $param->{$key};
}

# Take the secrets out of the parameters. undef stands for "delete it", a missing key for "leave
# it alone" (contract V8); a new value wins over its own deletion.
sub extract_sensitive_params {
    my ($param, $sensitive_list, $delete_list) = @_;
    my %delete = map { $_ => 1 } @{ $delete_list // [] };
    my $secrets = {};
    for my $name (@$sensitive_list) {
        my $value = extract_param($param, $name);
        $secrets->{$name} = $value if defined($value) || $delete{$name};
    }
    return $secrets;
}

# Calls back in readdir order, which is no order (contract 1.1).
sub dir_glob_foreach {
    my ($dir, $regex, $code) = @_;
    opendir(my $dh, $dir) or return;
    while (defined(my $name = readdir($dh))) {
        my @found = $name =~ m/^($regex)$/ or next;
        $code->(@found);
    }
    closedir($dh);
}

sub file_get_contents {
    my ($path, $max) = @_;
    open(my $fh, '<', $path) or die "can't open '$path' - $!\n";
    local $/ = undef;
    my $text = <$fh> // '';
    close($fh);
    die "file '$path' too long - aborting\n" if defined($max) && length($text) > $max;
    return $text;
}

# Atomic: readers see the old or the new text.
sub file_set_contents {
    my ($path, $text, $mode) = @_;
    my $temp = "$path.tmp.$$";
    eval {
        sysopen(my $fh, $temp, O_WRONLY | O_CREAT | O_TRUNC, $mode // oct('644'))
            or die "unable to open file '$temp' - $!\n";
        my $written = print {$fh} $text;
        die "unable to write '$temp' - $!\n" if !close($fh) || !$written;
        rename($temp, $path) or die "unable to rename '$temp' - $!\n";
    };
    if (my $err = $@) {
        unlink $temp;
        die $err;
    }
}

# Lock files of this process: path => [pid, depth].
my %held;

# A lock between processes, re-entrant in one (contract 7.3). Like all lock functions here it
# doesn't die but leaves the error in $@. No time limit once the lock is held.
sub lock_file {
    my ($path, $timeout, $code, @param) = @_;
    my ($fh, $res);
    my $mine = $held{$path} && $held{$path}->[0] == $$ ? $held{$path} : undef;
    eval {
        if (!$mine) {
            open($fh, '>>', $path) ## no critic (RequireBriefOpen)
                or die "can't open lock file '$path' - $!\n";
            my $deadline = Time::HiRes::time() + ($timeout // 10);
            while (!flock($fh, LOCK_EX | LOCK_NB)) {
                die "can't lock file '$path' - got timeout\n"
                    if Time::HiRes::time() > $deadline;
                Time::HiRes::sleep(0.05);
            }
            $mine = $held{$path} = [$$, 0];
        }
        $mine->[1]++;
        eval { $res = $code->(@param) };
        my $err = $@;
        delete $held{$path} if !--$mine->[1];
        die $err if $err;
    };
    my $err = $@;
    close($fh) if $fh;
    $@ = $err; ## no critic (RequireLocalizedPunctuationVars): for the caller
    return $err ? undef : $res;
}

# Unlike run_command without a timeout this leaves a pending alarm of the caller in force.
sub run_with_timeout {
    my ($timeout, $code, @param) = @_;
    my $begin = Time::HiRes::time();
    my $pending = Time::HiRes::alarm(0);
    my @res;
    eval {
        local $SIG{ALRM} = sub { die "got timeout\n" };
        Time::HiRes::alarm($timeout);
        eval { @res = $code->(@param) };
        my $err = $@;
        Time::HiRes::alarm(0);
        die $err if $err;
    };
    my $err = $@;
    if ($pending) {
        my $left = $pending - (Time::HiRes::time() - $begin);
        Time::HiRes::alarm($left > 0.001 ? $left : 0.001);
    }
    die $err if $err;
    return wantarray ? @res : $res[0];
}

# The same in a child, which can be killed even where it can't be interrupted. The result crosses
# a pipe as JSON: no code refs, no objects, errors as text.
sub run_fork_with_timeout {
    my ($timeout, $code) = @_;
    pipe(my $reader, my $writer) or die "pipe failed: $!\n";
    local $SIG{CHLD} = 'DEFAULT';
    my $pid = fork() // die "fork failed: $!\n";
    if (!$pid) {
        close($reader);
        my $res = eval { $code->() };
        syswrite($writer, encode_json($@ ? { error => "$@" } : { result => $res }));
        POSIX::_exit(0);
    }
    close($writer);
    my $read = sub { local $/ = undef; return scalar(<$reader>) };
    my $text = eval { $timeout ? run_with_timeout($timeout, $read) : $read->() };
    my $err = $@;
    kill('KILL', $pid) if $err;
    waitpid($pid, 0);
    die $err if $err;
    my $reply = decode_json($text || '{"error":"child died without a result\n"}');
    die $reply->{error} if defined($reply->{error});
    return $reply->{result};
}

1;
