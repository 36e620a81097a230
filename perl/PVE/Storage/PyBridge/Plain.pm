package PVE::Storage::PyBridge::Plain;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What can't cross a socket is left out. Loaded with the first value that has such parts, and with the first
# map that is meant to cross as it is.

use v5.36;
no warnings 'experimental::builtin'; ## no critic (ProhibitNoWarnings): so in Perl 5.36

=head3 instead

    my $value = instead($value, $err);

What is packed instead of a value that Data::MessagePack refused with C<$err>. Whatever else ended the
attempt, such as a signal's handler that died, is none of our business and goes on.

=cut

sub instead ($value, $err) {
    die $err if $err !~ /msgpack|Data::MessagePack|scalar is 0 or 1/;
    return ref($value) eq 'ARRAY' ? [map { plain($_) } @$value] : plain($value);
}

# Any structure of plain data; what can't cross (code, handles, objects) is left out (V3, V10).
sub plain ($value) {
    return $value if !ref($value);
    return $value ? 1 : 0 if is_boolean($value);
    my $kind = builtin::reftype($value);
    if ($kind eq 'HASH') {
        return {
            map { my $item = $value->{$_}; crosses($item) ? ($_ => plain($item)) : () }
                keys %$value
        };
    }
    return [map { plain($_) } grep { crosses($_) } @$value] if $kind eq 'ARRAY';
    return undef;
}

sub crosses ($value) {
    return 1 if !ref($value) || is_boolean($value);
    return builtin::reftype($value) =~ /\A(?:HASH|ARRAY)\z/;
}

# JSON's, of whatever module: all of them are or inherit from this class.
sub is_boolean ($value) { return builtin::blessed($value) && $value->isa('JSON::PP::Boolean'); }

1;
