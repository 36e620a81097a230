package PVE::Storage::PyBridge::Names;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Volume names by the patterns of a manifest, without the server (D5). The Python twin is
# pve_pybridge/names.py; a test runs both.

use v5.36;

use PVE::Storage::PyBridge::Type ();

# A group that captures, maybe with a name; before it what may hold a parenthesis that opens none:
# an escape, a class, a comment or a condition.
my $GROUP = qr/\\. | \[\^?\]?(?:\\.|[^\\\]])*\] | \(\?[#(][^)]*\) | (\()(?:(?!\?)|\?P?<(\w+)>)/sx;

=head3 parser

    my $parse = parser($manifest);
    my ($vtype, $name, $vmid, $basename, $basevmid, $isBase, $format) = $parse->($volname);

The C<parse_volname> of a type: pure, dies for a name that fits no pattern. Only the last answer is
kept: PVE asks for one name several times and then for the next, and to keep more costs a new name
more (5 us) than parsing it again (3 us).

=cut

sub parser ($manifest) {
    return $manifest->{made}->{parser} //= parser_of($manifest); # one for all methods
}

sub parser_of ($manifest) {
    my $type = $manifest->{type};
    my @patterns =
        map { [PVE::Storage::PyBridge::Type::compiled($_->{pattern}), $_] } $manifest->{names}->@*;
    my ($last, @answer);

    return sub ($volname) {
        return @answer if defined($last) && defined($volname) && $volname eq $last;

        for my $pattern (defined($volname) ? @patterns : ()) {
            # What matched a root-owned pattern may be used: captures are untainted (C-019).
            my @part = $volname =~ $pattern->[0] or next;
            my ($at, $vtype, $base, $format, @constant) =
                ($pattern->[2] //= plan($pattern->[1]))->@*;
            $last = undef; # a signal may end us before the answer is whole
            @answer = (
                $vtype, @part[@$at], defined($part[$base]) ? 1 : undef,
                join($part[$format] // '', @constant),
            );
            $last = $volname;
            return @answer;
        }
        my $shown = ($volname // '') =~ s/[[:cntrl:]]/?/gr; # an error is one line (C-020)
        die "unable to parse $type volume name '$shown'\n";
    };
}

# What becomes of the captures, by their numbers: a look into %+ takes 1 us for each name.
sub plan ($name) {
    my ($count, %at) = (0);
    while ($name->{pattern} =~ /$GROUP/g) {
        next if !$1;
        $at{$2} = $count if defined($2);
        $count++;
    }
    my ($base, $format, @parts) =
        map { $at{$_} // ($count || 1) } qw(base format name vmid basename basevmid);
    return [\@parts, $name->{vtype}, $base, $format, split(/\{format\}/, $name->{format}, -1)];
}

1;
