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

use Scalar::Util qw(refaddr);

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Forward;

my %PLAN = (
    check_connection => \&check_connection,
    activate_storage => \&activate_storage,
    status => \&status,
);

my %waiting; # storeid => its check_connection waits for activate_storage

=head3 plan

    my $method = plan($manifest, $name, $row);

The sub of one of the three methods.

=cut

sub plan ($manifest, $name, $row) {
    my $alone = PVE::Storage::PyBridge::Forward::plan($manifest, $name, $row);
    my $activation = $manifest->{methods}->{activate_storage}->{call} // '';
    return $alone if $activation ne 'forward'; # nothing that the others could go with
    return $PLAN{$name}->($alone, $manifest);
}

sub check_connection ($alone, $) {
    return sub {
        goto &$alone if (callers())[0] ne 'PVE::Storage::activate_storage';
        $waiting{ $_[1] } = 1;
        return 1;
    };
}

sub status ($alone, $) {
    return sub {
        my (undef, $storeid, undef, $cache) = @_;
        my $known = ref($cache) ? delete $cache->{'pve-pybridge'}->{$storeid} : undef;
        goto &$alone if !$known;
        return PVE::Storage::PyBridge::Forward::shaped('status', $storeid, 'ARRAY', $known->() // [])->@*;
        goto &{ $alone->('status') };
    };
}

sub activate_storage ($alone, $manifest) {
    return sub {
        my ($class, $storeid, $scfg, $cache) = @_;
        my ($first, $second) = callers();
        my @methods = 'activate_storage';
        unshift @methods, 'check_connection' if delete $waiting{$storeid};
        push @methods, 'status'
            if $first eq 'PVE::Storage::activate_storage' && $second eq 'PVE::Storage::storage_info';
        goto &$alone if @methods == 1;

        local ($@, $!); # the caller's, not ours (V26)
        while (@methods && $methods[0] ne 'status') { # twice where one at a time is answered
            for my $answer (ask($manifest, \@methods, $storeid, $scfg, $cache)) {
                my $method = shift @methods;
                online($storeid, $answer) if $method eq 'check_connection';
                $answer->() if $method eq 'activate_storage';
                $cache->{'pve-pybridge'}->{$storeid} = $answer if $method eq 'status';
            }
        }
        return;
    };
}

# PVE's own words: it has left the question to us.
sub online ($storeid, $answer) {
    my $online = eval { $answer->() };
    die "connection check for storage '$storeid' failed - $@\n" if !$online && $@;
    die "storage '$storeid' is not online\n" if !$online;
    return;
}

# Asks for several things at once. Returns a sub for each that was answered, at least one; it returns
# the answer or dies of it.
sub ask ($manifest, $methods, $storeid, $scfg, $cache) {
    my ($first, @others) = @$methods;
    my $limit = 0;
    for my $row (map { $manifest->{methods}->{$_} } @$methods) {
        $limit = defined($limit) && defined($row->{deadline}) ? $limit + $row->{deadline} : undef;
    }
    my $plan = { type => $manifest->{type}, method => $first, retry => 1, deadline => $limit };
    my $meta = { operation => "$$-" . refaddr($cache) };
    my $message =
        ['call', 0, $first, "$storeid", PVE::Storage::PyBridge::Codec::plain($scfg), {}, $meta];
    my $more = { then => \@others };
    my @value = eval { (PVE::Storage::PyBridge::Client::call($plan, $message, $more))[0] };
    my ($err, @answers) = ($@, @{ $more->{answers} // [] });
    shift @answers;
    return (
        sub { @value ? $value[0] : die $err },
        map {
            my $answer = $_;
            sub { (PVE::Storage::PyBridge::Client::value_of($answer))[0] }
        } @answers
    );
}

# The subs of PVE that led here, the last one first.
sub callers () {
    my ($depth, @names) = (1);
    while (@names < 2 && defined(my $name = (caller($depth++))[3])) {
        push @names, $name if $name ne '(eval)' && $name !~ /\APVE::Storage::PyBridge::/;
    }
    return (@names, '', '');
}

1;
