package PVE::Storage::PyBridge::Codec;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Frames, and what can cross in them. Loaded with the first call, never at load time of PVE.

use v5.36;

use Data::MessagePack;

our $MAX_FRAME = 64 * 1024 * 1024;
sub WIRE_VERSION () { return 1; }

my $packer = Data::MessagePack->new();
my ($answers, $plain) = (0); # how many so far; the expression for plain ones, once it's worth it

=head3 section

    my $bytes = section($scfg);

The section of a storage as a call carries it: a server that has seen the same bytes knows it.

=cut

sub section ($scfg) {
    return eval { $packer->pack($scfg // {}) } // packed($scfg, $@);
}

# Nearly everything crosses as it is, and to try is cheaper than to look; this is for the rest.
sub packed ($value, $err) {
    require PVE::Storage::PyBridge::Plain;
    return $packer->pack(PVE::Storage::PyBridge::Plain::instead($value, $err));
}

=head3 encode

    my $frame = encode($message);

Length and payload of one message.

=cut

sub encode ($message) {
    my $payload = eval { $packer->pack($message) } // packed($message, $@);
    my $length = length($payload);
    die { message => "request of $length bytes exceeds the limit of $MAX_FRAME" }
        if $length > $MAX_FRAME;
    return pack('N', $length) . $payload;
}

# What a message holds after its kind: '' a plain value, HASH a map, undef anything.
my %SHAPE = (
    welcome => ['HASH'],
    part => ['', 'ARRAY'],
    result => ['', undef, 'HASH'],
    error => ['', 'HASH'],
    log => ['', '', ''],
    alive => [''],
);

=head3 decode

    my ($message, $size) = decode(\$buffer);

The first message in the buffer, with as many fields as its kind has or more, and the bytes it took;
an empty list while it is incomplete. Dies with a hash, as L<PVE::Storage::PyBridge::Client>
expects, for what can't be a message. Nothing in a message is tainted (V18).

=cut

sub decode ($buffer) {
    # One match says that it is complete, well-formed and untainted: 13,000 instructions under -T;
    # what is below does the same for all frames and takes 35,000.
    if ($plain && $$buffer =~ $plain) {
        my $size = 4 + unpack('N', $1);
        return ($packer->unpack($2), $size) if $size == $+[0];
    }

    return if length($$buffer) < 4;
    my $length = unpack('N', $$buffer);
    die { lost => 1, message => "answer of $length bytes exceeds the limit of $MAX_FRAME" }
        if $length > $MAX_FRAME;
    return if length($$buffer) < 4 + $length;

    my $payload = substr($$buffer, 4, $length);
    ($payload) = $payload =~ /\A(.*)\z/s if ${^TAINT};
    # The first few aren't worth the milliseconds for expression and proof: a short one without
    # large counts can't cost more than itself.
    my $harmless = ++$answers <= 3 && $length < 1024 && $payload !~ /[\xdc-\xdf]/;
    if (!$harmless) {
        require PVE::Storage::PyBridge::Proof;
        $plain //= PVE::Storage::PyBridge::Proof::plain_result();
    }
    my $whole = $harmless || PVE::Storage::PyBridge::Proof::complete(\$payload);
    my $message = $whole ? eval { $packer->unpack($payload) } : undef;
    die { lost => 1, message => 'answer is no msgpack array' }
        if ref($message) ne 'ARRAY' || !@$message;
    return (well_formed($message), 4 + $length);
}

sub well_formed ($message) {
    my ($kind) = @$message;
    my $shape = defined($kind) && !ref($kind) ? $SHAPE{$kind} : undef;
    die { lost => 1, message => 'unknown kind of message from the plugin server' } if !$shape;
    my $at = 0;
    for my $wanted (@$shape) {
        my $field = $message->[++$at];
        next if !defined($wanted) || (defined($field) && ref($field) eq $wanted);
        die { lost => 1, message => "malformed '$kind' from the plugin server" };
    }
    return $message;
}

1;
