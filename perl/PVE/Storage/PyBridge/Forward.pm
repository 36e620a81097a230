package PVE::Storage::PyBridge::Forward;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Turns a method's row into the sub that forwards it. Nothing here knows a method by name; what can't
# cross a socket as it is has an argument or result type of its own (contract section 3).

use v5.36;

use Scalar::Util qw(refaddr);

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;

# Results that need more than the value itself: type => sub of (value, what to call later).
my %FINISH = (
    blockdev => \&PVE::Storage::PyBridge::Codec::with_json_booleans,
    map => \&PVE::Storage::PyBridge::Codec::with_json_booleans,
    hook => \&PVE::Storage::PyBridge::Codec::with_json_booleans,
);

=head3 plan

    my $forward = plan($manifest, $name, $row);
    my @answer = $forward->(wantarray, @arguments_without_class);

=cut

sub plan ($manifest, $name, $row) {
    my $type = $manifest->{type};
    my @arguments = map { argument(@$_) } $row->{args}->@*;
    my $finish = $row->{result} eq 'cleanup' ? cleanup($manifest) : $FINISH{ $row->{result} };

    return sub ($want, @given) {
        local ($@, $!, $?, $_); # the caller's, not ours (V26)
        my %request = (
            method => $name,
            retry => $row->{retry},
            deadline => $row->{deadline},
            args => {},
            meta => {},
        );
        for my $argument (@arguments) {
            $argument->(\%request, \@given);
        }
        $request{scfg} //= configuration($request{storeid});

        my ($value, $extra) = PVE::Storage::PyBridge::Client::call($type, \%request);
        mutate(\%request, $extra->{mutable}) if $extra->{mutable};
        $value = $finish->($value, \%request) if $finish;
        shaped(\%request, 'ARRAY', $value) if $row->{context} ne 'scalar';
        return answer($row->{context}, $want, $value);
    };
}

# What to do with an argument that can't travel as it is: type => sub of (request, value, name).
my %TAKE = (
    storeid => sub ($request, $value, $name) { $request->{storeid} = '' . ($value // ''); },
    scfg => sub ($request, $value, $name) { scfg($request, $value); },
    mutable => sub ($request, $value, $name) {
        $request->{mutable} = $value;
        return scfg($request, $value) if $name eq 'scfg';
        $request->{args}->{$name} = PVE::Storage::PyBridge::Codec::plain($value);
    },
    # one operation of PVE shares one cache; its address tells operations apart (V3)
    cache => sub ($request, $value, $name) {
        $request->{meta}->{operation} = "$$-" . refaddr($value) if ref($value);
    },
    fd => sub ($request, $value, $name) {
        $request->{fd} = ref($value) || ref(\$value) eq 'GLOB' ? fileno($value) : $value;
        $request->{meta}->{fd} = 1;
    },
    logfunc => sub ($request, $value, $name) {
        $request->{on_log} = sub ($level, $line) { $value->($level, $line); }
            if $value;
    },
    blockers => sub ($request, $value, $name) { $request->{blockers} = $value; },
);

# How one argument enters the request: a sub that takes it off the list.
sub argument ($name, $type) {
    if (my $take = $TAKE{$type}) {
        return sub ($request, $given) { $take->($request, shift(@$given), $name); };
    }
    my $encode = PVE::Storage::PyBridge::Codec::encoder($type);
    if ($type eq 'slurpy') { # the rest of the list is a hash
        return sub ($request, $given) {
            $request->{args}->{$name} = $encode->({ splice(@$given) });
        };
    }
    return sub ($request, $given) {
        my $value = shift(@$given);
        $request->{args}->{$name} = $encode->($value) if defined($value);
    };
}

sub scfg ($request, $scfg) {
    $request->{scfg} = PVE::Storage::PyBridge::Codec::plain($scfg // {});
    return;
}

# The section of a storage, for the one method that isn't given it (on_update_hook).
sub configuration ($storeid) {
    my $config = PVE::Storage::config();
    return PVE::Storage::PyBridge::Codec::plain($config->{ids}->{$storeid} // {});
}

# PVE persists what a hook changed in the hash it was given (V6).
sub mutate ($request, $change) {
    my ($hash, $given) = ($request->{mutable}, shaped($request, 'HASH', $change));
    my $set = shaped($request, 'HASH', $given->{set} // {});
    my $delete = shaped($request, 'ARRAY', $given->{delete} // []);
    $set = PVE::Storage::PyBridge::Codec::with_json_booleans($set);
    $hash->{$_} = $set->{$_} for keys %$set;
    delete $hash->{$_} for @$delete;
    return;
}

# What can't be used is said in one line, not in Perl's words about references.
sub shaped ($request, $kind, $value) {
    return $value if !defined($value) || ref($value) eq $kind;
    die
        "storage '$request->{storeid}': $request->{method}: malformed answer of the plugin server\n";
}

# free_image may leave work for later: a code ref that PVE runs in a task of its own (V5).
sub cleanup ($manifest) {
    return sub ($value, $request) {
        return undef if !shaped($request, 'HASH', $value);
        my %later =
            (%$request, method => 'free_image_cleanup', args => { data => $value->{data} });
        delete @later{qw(retry deadline)};
        return sub {
            PVE::Storage::PyBridge::Client::call($manifest->{type}, \%later);
            return;
        };
    };
}

# What PVE gets in its context: contract section 10, V7.
sub answer ($context, $want, $value) {
    if ($context ne 'scalar') {
        my @list = @{ $value // [] };
        return $want || $context eq 'list' ? @list : $list[0];
    }
    return $value if defined($value) || !$want;
    return;
}

1;
