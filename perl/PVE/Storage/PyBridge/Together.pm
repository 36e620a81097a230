package PVE::Storage::PyBridge::Together;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Calls that PVE makes one right after another cost one round trip instead of three: its
# activate_storage asks check_connection and, if that says yes, activate_storage; its storage_info,
# every ten seconds for each storage, then asks for the status.
#
# Nothing is asked that PVE wouldn't ask: who calls us says what comes next. check_connection waits
# for activate_storage, which is sent with it; the status that storage_info is about to ask for comes
# along and stays in the operation's cache until it does. Whoever else calls one of them gets a
# call of its own.

use v5.36;

use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Forward;
use PVE::Storage::PyBridge::Method;
use PVE::Storage::PyBridge::Sequence;

my %PLAN = (
    check_connection => \&check_connection,
    activate_storage => \&activate_storage,
    status => \&status,
);

my %waiting; # storeid => its check_connection waits for activate_storage

=head3 plan

    my $method = plan($manifest, $name, $alone);

The sub of one of the three methods; C<$alone> makes a call of its own of it.

=cut

sub plan ($manifest, $name, $alone) {
    my $forwarded = $manifest->{methods}->{forward};
    return $alone if !$forwarded->{activate_storage}; # nothing that the others could go with
    return $PLAN{$name}->($alone, $manifest);
}

sub check_connection ($alone, $) {
    return sub {
        my (undef, $storeid) = @_;
        goto &$alone if !asked_by('PVE::Storage::activate_storage');
        $waiting{$storeid} = 1;
        return 1;
    };
}

sub status ($alone, $) {
    return sub {
        my (undef, $storeid, undef, $cache) = @_;
        my $known = ref($cache) ? delete $cache->{'pve-pybridge'}->{$storeid} : undef;
        goto &$alone if !$known;
        my $figures = value_of($known) // [];
        return PVE::Storage::PyBridge::Forward::shaped('status', $storeid, 'ARRAY', $figures)
            ->@*;
    };
}

sub activate_storage ($alone, $manifest) {
    return sub {
        my (undef, $storeid, $scfg, $cache) = @_;
        my @methods = 'activate_storage';
        unshift @methods, 'check_connection' if delete $waiting{$storeid};
        push @methods, 'status'
            if asked_by('PVE::Storage::activate_storage', 'PVE::Storage::storage_info');
        goto &$alone if @methods == 1;
        return in_a_row($manifest, \@methods, $storeid, $scfg, $cache);
    };
}

sub in_a_row ($manifest, $methods, $storeid, $scfg, $cache) {
    local $@; # the caller's, not ours (V26)
    for my $answer (ask($manifest, $methods, $storeid, $scfg, $cache)) {
        my $method = shift @$methods;
        if ($method eq 'status') {
            $cache->{'pve-pybridge'}->{$storeid} = $answer;
        } elsif ($method eq 'check_connection') {
            online($storeid, $answer);
        } else {
            value_of($answer);
        }
    }
    return;
}

# PVE's own words: it has left the question to us.
sub online ($storeid, $answer) {
    return if $answer->[0] eq 'result' && $answer->[2];
    my $online = eval { value_of($answer) };
    die "connection check for storage '$storeid' failed - $@\n" if !$online && $@;
    die "storage '$storeid' is not online\n" if !$online;
    return;
}

# Asks for several things at once.
sub ask ($manifest, $methods, $storeid, $scfg, $cache) {
    my $plan = $manifest->{made}->{rows}->{"@$methods"} //= row($manifest, $methods);
    my $section = PVE::Storage::PyBridge::Codec::section($scfg);
    my $message = ['call', 0, $plan->{row}, $storeid, $section, [], 0 + $cache];
    return PVE::Storage::PyBridge::Sequence::ask($plan, $message);
}

sub value_of ($answer) {
    my ($kind, undef, $value) = @$answer;
    return $value if $kind eq 'result';
    die $value if $kind eq 'died';
    require PVE::Storage::PyBridge::Answer;
    return PVE::Storage::PyBridge::Answer::raise($value, undef);
}

# The plan of all of them together; its deadline is their sum, if each has one.
sub row ($manifest, $methods) {
    my $sum = 0;
    for my $name (@$methods) {
        my $row = $manifest->{methods}->{forward}->{$name};
        my $deadline = PVE::Storage::PyBridge::Method::row($name, $row)->{deadline};
        $sum = defined($sum) && defined($deadline) ? $sum + $deadline : undef;
    }
    return PVE::Storage::PyBridge::Sequence::plan($manifest->{type}, $methods, $sum);
}

# Whether these subs of PVE, the last one first, led to the sub of ours that asks.
sub asked_by (@names) {
    my $depth = 2; # who called us, and who called that
    for my $name (@names) {
        my $sub = '(eval)';
        $sub = (caller($depth++))[3] // '' while $sub eq '(eval)';
        return 0 if $sub ne $name;
    }
    return 1;
}

1;
