package PVE::Storage::PyBridge::Rows;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Proves the rows of a long list complete, for PyBridge::Proof. Perl is slow byte by byte and fast in
# a regular expression: where a walk takes 0.6 us a value, rows are matched whole (1 us for ten
# values) and, where many have the same keys, in runs (0.3 us a row).

use v5.36;

# Rows of one run; shapes of rows that are learnt, after how many runs of each: a regular expression
# takes a millisecond to compile.
use constant { RUN => 64, MAX_SHAPES => 32, WORTH => 4 };

=head3 skip

    my $rows = skip($payload, $byte, $needed, \$single);

Moves C<pos($$payload)> behind as many of the next C<$needed> values as are rows and can be matched
at once; returns how many. C<$byte> is the first one's first byte; C<$single> is kept from call to
call of one payload: how many rows were matched one by one since the last try of a run.

=cut

sub skip ($payload, $byte, $needed, $single) {
    my $before = $needed;
    if ($needed >= RUN && ($$single // RUN) >= RUN) {
        my $run = run($payload, $byte);
        $needed -= RUN while $run && $needed >= RUN && $$payload =~ /$run/gc;
        $$single = 0;
    }
    my $row = row($byte);
    for (1 .. RUN) {
        last if !$needed || $$payload !~ /$row/gc;
        $needed--;
        $$single++;
    }
    return $before - $needed;
}

# A number or a string below 256 bytes, as alternatives that all begin with fixed bytes: that is one
# step for Perl.
sub value () {
    state $value = do {
        my %follow = PVE::Storage::PyBridge::Proof::scalars();
        my %rest = map { chr($_) => $follow{$_} } keys %follow;
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
