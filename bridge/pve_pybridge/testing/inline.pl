#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Runs Perl snippets for perl.py: one JSON request per line on one descriptor, one JSON reply per
# line on another, numbers in @ARGV. STDOUT and STDERR are files that perl.py empties and reads, so
# what children print, or what is printed before a crash, is not lost.

package main;

use strict;
use warnings;

our @ARGS;

# First, so that snippets see none of this file's lexicals.
sub compile_and_run {
    return eval $_[0]; ## no critic (ProhibitStringyEval): what a snippet is for
}

package PVEPyBridgeTest::Driver; ## no critic (ProhibitMultiplePackages)

use B qw(svref_2object SVf_IOK SVf_NOK SVf_POK);
use Fcntl qw(F_SETFD FD_CLOEXEC);
use IO::Handle;
use JSON;
use POSIX ();
use Scalar::Util qw(blessed reftype tainted);
use feature qw(current_sub);

my $json = JSON->new->utf8->canonical->allow_nonref;

# Empty and, under -T, tainted: appending it taints.
my $TAINT = substr($^X, 0, 0);

# Programs can only be run under -T with an environment of known origin.
$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin'; ## no critic (RequireLocalizedPunctuationVars)
delete @ENV{qw(IFS CDPATH ENV BASH_ENV)};

my sub untaint { return $_[0] =~ m/\A(.*)\z/s ? $1 : '' }

my sub open_fd {
    my ($mode, $number) = @_;
    open(my $fh, "$mode&=", untaint($number)) or die "descriptor $number: $!\n";
    fcntl($fh, F_SETFD, FD_CLOEXEC) or die "descriptor $number: $!\n";
    return $fh;
}

# What was made as a number, even if it has been interpolated since. JSON's own test would call
# that a string, and results would depend on what was logged.
my sub is_number {
    my $flags = svref_2object(\$_[0])->FLAGS;
    return $flags & (SVf_IOK | SVf_NOK) && !($flags & SVf_POK);
}

# The result of a comparison, which Perl can tell from 1 and '' since 5.36.
my sub is_boolean {
    no warnings; ## no critic (ProhibitNoWarnings): experimental in one Perl, unknown in another
    return defined(&builtin::is_bool) && builtin::is_bool($_[0]);
}

# {"__bytes__": hex} stands for a byte string in both directions.
my sub decode_value {
    my ($value, $taint) = @_;
    if (ref($value) eq 'ARRAY') {
        return [map { __SUB__->($_, $taint) } @$value];
    } elsif (ref($value) eq 'HASH') {
        return { map { $_ => __SUB__->($value->{$_}, $taint) } keys %$value }
            if !defined($value->{__bytes__});
        $value = pack('H*', $value->{__bytes__});
    }
    return $value if !$taint || !defined($value) || ref($value);
    # A string that becomes tainted stays a string, a number a number.
    return is_number($value) ? 0 + "$value$TAINT" : $value . $TAINT;
}

my sub encode_text {
    my ($text) = @_;
    return $text if utf8::is_utf8($text) || $text !~ m/[^\x00-\x7f]/;
    my $decoded = $text;
    return $decoded if utf8::decode($decoded);
    return { __bytes__ => unpack('H*', $text) };
}

# $seen collects whether any scalar was tainted.
my sub encode_value {
    my ($value, $seen, $depth) = @_;
    $seen->{tainted} = 1 if tainted($value);
    my $class = blessed($value);
    if (defined($class)) {
        return $value ? JSON::true : JSON::false if $class =~ m/Boolean$/;
        return { __class__ => $class };
    }
    my $type = ref($value);
    return { __code__ => 1 } if $type eq 'CODE';
    if ($type && $depth > 64) {
        return { __ref__ => "$type, nested too deeply" };
    } elsif ($type eq 'ARRAY') {
        return [map { __SUB__->($_, $seen, $depth + 1) } @$value];
    } elsif ($type eq 'HASH') {
        return { map { $_ => __SUB__->($value->{$_}, $seen, $depth + 1) } keys %$value };
    } elsif ($type) {
        return { __ref__ => $type };
    }
    return $value if !defined($value);
    return $value ? JSON::true : JSON::false if is_boolean($value);
    return encode_text($value) if !is_number($value);
    # JSON's own form of floats loses digits, and knows no infinity.
    my $is_integer = svref_2object(\$value)->FLAGS & SVf_IOK;
    return $is_integer ? 0 + $value : { __float__ => sprintf('%.17g', $value) };
}

# What a caller can learn from $@: the text, and of an object its class and its fields.
my sub encode_error {
    my ($err, $seen) = @_;
    my $class = blessed($err);
    my $fields;
    if (defined($class) && (reftype($err) // '') eq 'HASH') {
        $fields = encode_value({ map { $_ => $err->{$_} // undef } qw(msg code errors) }, $seen, 0);
    }
    return (
        error => encode_text("$err"),
        error_class => $class,
        error_data => $fields,
    );
}

my sub answer {
    my ($request) = @_;
    my @warnings;
    local $SIG{__WARN__} = sub {
        push @warnings, "$_[0]";
        print STDERR $_[0];
    };
    my $args = decode_value($request->{args}, $request->{taint});
    local @main::ARGS = @$args;
    my $code = "package main; use strict; use warnings;\n#line 1 \"snippet\"\n$request->{code}\n;";
    my $context = $request->{context};
    my ($value, $err);
    {
        local $@;
        if ($context eq 'list') {
            $value = [main::compile_and_run($code)];
        } elsif ($context eq 'scalar') {
            $value = main::compile_and_run($code);
        } else {
            main::compile_and_run($code);
        }
        $err = $@;
    }
    my $seen = {};
    my %reply = (value => undef);
    if (ref($err) || $err ne '') {
        %reply = (%reply, encode_error($err, $seen));
    } else {
        $reply{value} = encode_value($value, $seen, 0);
    }
    $reply{warnings} = [map { encode_text($_) } @warnings];
    $reply{tainted} = $seen->{tainted} ? JSON::true : JSON::false;
    return \%reply;
}

my ($in_fd, $out_fd) = @ARGV;
my $in = open_fd('<', $in_fd);
my $out = open_fd('>', $out_fd);
$out->autoflush(1);
STDERR->autoflush(1);
my $driver_pid = $$;

while (defined(my $line = <$in>)) {
    # Or every message without a newline would end in ", <$fh> line N."
    $. = 0; ## no critic (RequireLocalizedPunctuationVars)

    # Nothing decoded from a clean line is tainted.
    my $reply = answer($json->decode(untaint($line)));
    # A child of the snippet that came back here has no business with our descriptors.
    POSIX::_exit(70) if $$ != $driver_pid;
    STDOUT->flush();
    print {$out} $json->encode($reply), "\n";
}
