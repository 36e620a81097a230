package PVE::Storage::PyBridge::Values;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Values by declared type (D9), for arguments and answers that aren't plain strings and maps. Loaded
# with the first call of a method that has one.
#
# Data::MessagePack packs a scalar by what Perl last used it for; the types below make that a matter
# of the method table instead. Strings travel as they are: characters as UTF-8, bytes untouched.

use v5.36;

use JSON ();
use Scalar::Util qw(looks_like_number);

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Forward;
use PVE::Storage::PyBridge::Plain;

# Argument type => encoder, for types that PyBridge::Forward doesn't take itself. Values that don't fit
# go as they are: the server says what is wrong.
my %ENCODE = (
    text => \&characters,
    int => \&integer,
    number => \&integer,
    bool => sub ($value) { return defined($value) ? ($value ? 1 : 0) : undef },
    kib => \&kib,
    strlist => sub ($value) {
        return ref($value) eq 'ARRAY' ? [map { string($_) } @$value] : $value;
    },
    map { $_ => \&PVE::Storage::PyBridge::Plain::plain } qw(map intmap snapshots),
);

=head3 encoder

The encoder of an argument type, a sub of one value.

=cut

sub encoder ($type) {
    return $ENCODE{$type} // die "unknown argument type '$type': update pve-pybridge\n";
}

sub string ($value) { return defined($value) ? "$value" : undef; }

# Text for people is characters in PVE, also those that Perl happens to keep as single bytes (V15).
sub characters ($value) {
    my $copy = string($value) // return undef;
    utf8::upgrade($copy);
    return $copy;
}

# By its value, never by its spelling: Perl spells 2**60 with 15 digits (V13).
sub integer ($value) {
    return undef if !defined($value);
    return looks_like_number($value) ? 0 + $value : "$value";
}

# KiB, maybe fractional, to whole bytes, rounded up (T-05). Integers stay exact beyond 2^53 (C-031).
sub kib ($value) {
    return undef if !defined($value);
    my $copy = "$value";
    return $copy * 1024 if $copy =~ /\A[0-9]{1,15}\z/ && $copy == $value;
    return ceil($value * 1024) if $copy =~ /\A[0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]+)?\z/i;
    return $copy;
}

# POSIX has one, but takes 3 ms to load.
sub ceil ($number) {
    my $whole = int($number);
    return $whole < $number ? $whole + 1 : $whole;
}

=head3 with_json_booleans

The value with msgpack's booleans as JSON booleans, which C<to_json> understands (V10).

=cut

sub with_json_booleans ($value, @) {
    my $ref = ref($value) or return $value;
    return $value ? JSON::true() : JSON::false() if $ref eq 'Data::MessagePack::Boolean';
    return [map { with_json_booleans($_) } @$value] if $ref eq 'ARRAY';
    return { map { $_ => with_json_booleans($value->{$_}) } keys %$value };
}

# The section of a storage, for the one method that isn't given it (on_update_hook).
sub section_of ($storeid) {
    return PVE::Storage::PyBridge::Codec::section(PVE::Storage::config()->{ids}->{$storeid});
}

# PVE persists what a hook changed in the hash it was given (V6).
sub mutate ($plan, $message, $hash, $extra) {
    my $shaped = sub ($kind, $value) {
        PVE::Storage::PyBridge::Forward::shaped($plan->{method}, $message->[3], $kind, $value);
    };
    my $change = $shaped->('HASH', $extra->{mutable} // return);
    my $set = with_json_booleans($shaped->('HASH', $change->{set} // {}));
    my $delete = $shaped->('ARRAY', $change->{delete} // []);
    $hash->{$_} = $set->{$_} for keys %$set;
    delete $hash->{$_} for @$delete;
    return;
}

# free_image may leave work for later: a code ref that PVE runs in a task of its own (V5).
sub cleanup ($value, $plan, $message) {
    return undef if !defined($value);
    my $work =
        PVE::Storage::PyBridge::Forward::shaped($plan->{method}, $message->[3], 'HASH', $value);
    my $later = { type => $plan->{type}, method => 'free_image_cleanup', names => ['data'] };
    my @call =
        ('call', 0, $later->{method}, $message->@[3, 4], [$work->{data}], $message->[6]);
    return sub {
        PVE::Storage::PyBridge::Client::call($later, \@call);
        return;
    };
}

1;
