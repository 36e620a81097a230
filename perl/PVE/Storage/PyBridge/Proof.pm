package PVE::Storage::PyBridge::Proof;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Whether bytes are one whole msgpack value. PyBridge::Codec asks before it unpacks an answer that
# isn't plain: Data::MessagePack makes room for as many elements as a header claims, so a broken one
# could end the process for want of memory, and it never frees what it had read of an incomplete
# message.
#
# Perl is slow byte by byte and fast in a regular expression. A walk takes 0.6 us a value; rows, which
# long lists consist of, are matched whole (1 us for ten values) and, where many have the same keys,
# in runs (0.3 us a row).

use v5.36;

# Rows of one run; shapes of rows that are learnt, after how many runs of each: a regular expression
# takes a millisecond to compile.
use constant { RUN => 64, MAX_SHAPES => 32, WORTH => 4 };

# Below that a row isn't worth its regular expression.
use constant FEW_BYTES => 1024;

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
    my $single = RUN; # rows matched one by one since the last try to match a run of them
    while ($needed) {
        return 0 if $needed > $end - $at; # each takes a byte at least
        my $byte = vec($$payload, $at, 8);
        if ($byte > 0x80 && $byte < 0x90 && $end > FEW_BYTES) {
            my $before = $needed;
            pos($$payload) = $at;
            if ($single >= RUN && $needed >= RUN) {
                my $run = run($payload, $byte);
                $needed -= RUN while $run && $needed >= RUN && $$payload =~ /$run/gc;
                $single = 0;
            }
            my $row = row($byte);
            for (1 .. RUN) {
                last if !$needed || $$payload !~ /$row/gc;
                $needed--;
                $single++;
            }
            $at = pos($$payload);
            next if $needed < $before;
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

# A number or a string below 256 bytes, as alternatives that all begin with fixed bytes: that is one
# step for Perl.
sub value () {
    state $value = do {
        my %rest = map { (chr($_) => $BYTES[$_] // 0) }
            grep { !$VALUES[$_] && !$COUNT[$_] } 0 .. 0x7f, 0xa0 .. 0xff;
        $rest{ "\xd9" . chr($_) } = $_ for 0 .. 255;
        join('|', map { quotemeta($_) . ".{$rest{$_}}" } sort keys %rest);
    };
    return $value;
}

# One row, a map with this first byte.
sub row ($byte) {
    state @known;
    return $known[$byte] //= do {
        my ($map, $count, $value) = (quotemeta(chr($byte)), 2 * ($byte - 0x80), value());
        qr/\G$map(?>$value){$count}/s;
    };
}

# A run of rows with the keys of the one at the payload's position; undef while it isn't worth while.
sub run ($payload, $byte) {
    state %known; # keys => how often they were met, then the expression
    my ($at, $row, $value) = (pos($$payload), row($byte), value());
    return undef if $$payload !~ /$row/gc;
    my @parts = substr($$payload, $at + 1, pos($$payload) - $at - 1) =~ /\G($value)/gs;
    pos($$payload) = $at;

    my @keys = @parts[grep { $_ % 2 == 0 } 0 .. $#parts];
    my $shape = join('', @keys);
    return undef if !exists($known{$shape}) && keys(%known) >= MAX_SHAPES;
    my $known = $known{$shape} //= 0;
    return $known if ref($known);
    return undef if ++$known{$shape} <= WORTH;
    my ($map, $rest, $rows) =
        (quotemeta(chr($byte)), join('', map { quotemeta($_) . "(?>$value)" } @keys), RUN);
    return $known{$shape} = qr/\G(?>$map$rest){$rows}/s;
}

1;
