package PVE::Storage::PyBridge::Codec;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Values by declared type (D9) and frames. Loaded with the first call, never at load time of PVE.
#
# Data::MessagePack packs a scalar by what Perl last used it for; the types below make that a matter
# of the method table instead. Strings travel as they are: characters as UTF-8, bytes untouched.

use v5.36;

use Data::MessagePack;
use JSON ();
use Scalar::Util qw(looks_like_number reftype);

use constant MAX_FRAME => 64 * 1024 * 1024;
use constant WIRE_VERSION => 1;

my $packer = Data::MessagePack->new();

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
    map { $_ => \&plain } qw(map intmap snapshots),
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

# Any structure of plain data; what can't cross (code, handles, objects) is left out (V3, V10).
# Nearly all of it can, and a look is cheaper than a copy.
sub plain ($value) {
    return $value if !ref($value) || crosses_whole($value);
    return $value ? 1 : 0 if JSON::is_bool($value);
    my $kind = reftype($value);
    if ($kind eq 'HASH') {
        return {
            map { my $item = $value->{$_}; crosses($item) ? ($_ => plain($item)) : () }
                keys %$value
        };
    }
    return [map { plain($_) } grep { crosses($_) } @$value] if $kind eq 'ARRAY';
    return undef;
}

sub crosses_whole ($value) {
    return 0 if ref($value) ne 'HASH';
    for (values %$value) {
        return 0 if ref && !crosses_whole($_);
    }
    return 1;
}

sub crosses ($value) {
    return 1 if !ref($value) || JSON::is_bool($value);
    return reftype($value) =~ /\A(?:HASH|ARRAY)\z/;
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

=head3 encode

    my $frame = encode($message);

Length and payload of one message.

=cut

sub encode ($message) {
    my $payload = $packer->pack($message);
    my $length = length($payload);
    die { message => "request of $length bytes exceeds the limit of " . MAX_FRAME }
        if $length > MAX_FRAME;
    return pack('N', $length) . $payload;
}

# The frame of a result with one plain value, or with a short list of such, and no extra.
my $PLAIN = do {
    my $strings = join('|', map { sprintf('\x%02x.{%d}', 0xa0 + $_, $_) } 0 .. 31);
    my $integers =
        '[\x00-\x7f\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1]..|[\xce\xd2].{4}|[\xcf\xd3].{8}';
    my $value = "(?>$integers|[\\xc0\\xc2\\xc3]|$strings|\\xcb.{8})";
    qr/\A(.{4})(\x94\xa6result(?:$integers)(?:$value|\x93$value{3}|\x94$value{4})\x80)\z/s;
};

=head3 decode_plain

    my $message = decode_plain($data);

The message, when the data is a single frame as most answers are, else undef. One match says that it
is complete, well-formed and untainted: 13,000 instructions under -T, where C<decode> and a look at
the shape, which do the same for all frames, take 35,000.

=cut

sub decode_plain ($data) {
    return $data =~ $PLAIN && unpack('N', $1) == length($2) ? $packer->unpack($2) : undef;
}

=head3 decode

    my ($message, $size) = decode($buffer);

The first message in the buffer and the bytes it took; an empty list while it is incomplete. Dies
with a hash, as L<PVE::Storage::PyBridge::Client> expects, for what can't be a message. The payload
is untainted as a whole, so that nothing decoded from it is tainted (V18).

=cut

sub decode ($buffer) {
    return if length($$buffer) < 4;
    my $length = unpack('N', $$buffer);
    die { lost => 1, message => "answer of $length bytes exceeds the limit of " . MAX_FRAME }
        if $length > MAX_FRAME;
    return if length($$buffer) < 4 + $length;

    my $payload = substr($$buffer, 4, $length);
    ($payload) = $payload =~ /\A(.*)\z/s if ${^TAINT};
    require PVE::Storage::PyBridge::Proof;
    my $message =
        PVE::Storage::PyBridge::Proof::complete(\$payload) && eval { $packer->unpack($payload) };
    die { lost => 1, message => 'answer is no msgpack array' }
        if ref($message) ne 'ARRAY' || !@$message;
    return ($message, 4 + $length);
}

1;
