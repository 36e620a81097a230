package PVE::Storage::PyBridge::Proof;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Whether bytes are one whole msgpack value. PyBridge::Codec asks before it unpacks an answer that
# isn't plain: Data::MessagePack makes room for as many elements as a header claims, so a broken one
# could end the process for want of memory, and it never frees what it had read of an incomplete
# message.
# PyBridge::Rows helps where there are many rows.

use v5.36;

# Below that a row isn't worth its regular expression.
my $FEW_BYTES = 1024;

# By first byte: how many bytes follow; how many values; format and size of a count, and what it
# counts: bytes (0), values (1) or pairs (2).
my (@BYTES, @VALUES, @COUNT);
@VALUES[0x80 .. 0x9f] = ((map { 2 * $_ } 0 .. 15), 0 .. 15);
@BYTES[0xa0 .. 0xbf] = 0 .. 31;
@BYTES[0xca .. 0xd3] = (4, 8, 1, 2, 4, 8, 1, 2, 4, 8);
@VALUES[0xc1, 0xc7 .. 0xc9, 0xd4 .. 0xd8] = (1 << 32) x 9; # types we don't use: never enough
@COUNT[0xc4 .. 0xc6, 0xd9 .. 0xdb] = map { [@$_, 0] } (['C', 1], ['n', 2], ['N', 4]) x 2;
@COUNT[0xdc .. 0xdf] = (['n', 2, 1], ['N', 4, 1], ['n', 2, 2], ['N', 4, 2]);

=head3 complete

    if (complete(\$payload)) { ... }

Whether it is exactly one value.

=cut

sub complete ($payload) {
    my ($at, $end, $needed) = (0, length($$payload), 1);
    my $single; # rows skipped one by one, kept for Rows
    while ($needed) {
        return 0 if $needed > $end - $at; # each takes a byte at least
        my $byte = vec($$payload, $at, 8);
        if ($byte > 0x80 && $byte < 0x90 && $end > $FEW_BYTES) {
            require PVE::Storage::PyBridge::Rows;
            pos($$payload) = $at;
            my $rows = PVE::Storage::PyBridge::Rows::skip($payload, $byte, $needed, \$single);
            $at = pos($$payload);
            $needed -= $rows;
            next if $rows;
        }
        $at += 1 + ($BYTES[$byte] // 0);
        $needed += ($VALUES[$byte] // 0) - 1;
        my $count = $COUNT[$byte] or next;
        my ($format, $size, $each) = @$count;
        return 0 if $at + $size > $end;
        my $number = unpack("x$at$format", $$payload);
        $at += $size + ($each ? 0 : $number);
        $needed += $each * $number;
    }
    return $at == $end;
}

# Bytes that begin a number or a string below 32 bytes, and how many follow each.
sub scalars () {
    return map { $_ => $BYTES[$_] // 0 }
        grep { !$VALUES[$_] && !$COUNT[$_] } 0 .. 0x7f, 0xa0 .. 0xff;
}

=head3 plain_result

    my $expression = plain_result();

What a frame looks like that is a result with one plain value, or with a short list of such, and no extra.
Captures the length and the payload.

=cut

sub plain_result {
    my $strings = join('|', map { sprintf('\x%02x.{%d}', 0xa0 + $_, $_) } 0 .. 31);
    my $integers = '[\x00-\x7f\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1]..|[\xce\xd2].{4}|[\xcf\xd3].{8}';
    my $value = "(?>$integers|[\\xc0\\xc2\\xc3]|$strings|\\xcb.{8})";
    return qr/\A(.{4})(\x94\xa6result(?:$integers)(?:$value|\x93$value{3}|\x94$value{4})\x80)/s;
}

1;
