package PVE::Storage::PyBridge::Static;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Answers that never cross the socket (D5): volume names by pattern, and methods by rules over the
# name and a few arguments. The Python twin is pve_pybridge/names.py; a test runs both.

use v5.36;

# Names seen in this process; bounded, because pvestatd lives for months.
use constant MAX_MEMO => 20_000;

=head3 parser

    my $parse = parser($manifest);
    my ($vtype, $name, $vmid, $basename, $basevmid, $isBase, $format) = $parse->($volname);

The C<parse_volname> of a type: pure, memoised, dies for a name that fits no pattern.

=cut

sub parser ($manifest) {
    my @patterns = map { compiled($_) } $manifest->{names}->@*;
    my $type = $manifest->{type};
    my %memo;

    return sub ($volname) {
        my $known = $memo{ $volname // '' };
        return @$known if $known;

        for my $pattern (@patterns) {
            next if !defined($volname) || $volname !~ $pattern->{re};
            # What matched a root-owned pattern may be used: captures are untainted (C-019). One by
            # one: a copy of all of %+ takes as long as the match.
            my %part;
            $part{$_} = $+{$_} for $pattern->{groups}->@*;
            my $format = $pattern->{format};
            $format =~ s/\{format\}/$part{format} \/\/ ''/e if defined($part{format});
            my $answer = [
                $pattern->{vtype}, @part{qw(name vmid basename basevmid)},
                defined($part{base}) ? 1 : undef, $format,
            ];
            %memo = () if keys(%memo) >= MAX_MEMO;
            $memo{$volname} = $answer;
            return @$answer;
        }
        my $shown = ($volname // '') =~ s/[[:cntrl:]]/?/gr; # an error is one line (C-020)
        die "unable to parse $type volume name '$shown'\n";
    };
}

# A name pattern ready for use, with the named groups that it has.
sub compiled ($name) {
    my $pattern = $name->{pattern};
    my @groups =
        grep { $pattern =~ /\(\?P?<\Q$_\E>/ } qw(name vmid basename basevmid base format);
    return { %$name, re => qr/\A(?:$pattern)\z/a, groups => \@groups };
}

=head3 answerer

    my $answerer = answerer($rules, $row, $parse);
    my $answer = $answerer->(\@arguments);

The answers of one method by its rules, remembered by the arguments that can make a difference: 2 us
instead of up to 35.

=cut

sub answerer ($rules, $row, $parse) {
    my @type = map { $_->[1] } $row->{args}->@*;
    my @scalars = grep { $type[$_] !~ /\A(?:storeid|scfg|map|snapshots)\z/ } 0 .. $#type;
    my @nested = grep { $type[$_] =~ /\A(?:map|snapshots)\z/ } 0 .. $#type;
    my ($scfg) = grep { $type[$_] eq 'scfg' } 0 .. $#type;
    my %asked = map { $_->[0]->%* } @$rules;
    my @options = map { /\Aoption:(.+)\z/ ? $1 : () } sort keys %asked;
    my %memo;

    return sub ($given) {
        for my $at (@nested) {
            return answer($rules, facts($row, $parse, $given)) if ref($given->[$at]);
        }
        my @decisive = (@$given[@scalars, @nested], map { $given->[$scfg]->{$_} } @options);
        my $key = join("\0", map { $_ // "\1" } @decisive);
        return $memo{$key} if exists($memo{$key});
        my $answer = answer($rules, facts($row, $parse, $given));
        %memo = () if keys(%memo) >= MAX_MEMO;
        return $memo{$key} = $answer;
    };
}

=head3 answer

    my $answer = answer($rules, \%facts);

The answer of the first rule that holds, or undef.

=cut

sub answer ($rules, $facts) {
    RULE: for my $rule (@$rules) {
        my ($when, $answer) = @$rule;
        for my $key (keys %$when) {
            next RULE if !meets($facts->{$key}, $when->{$key});
        }
        return $answer;
    }
    return undef;
}

sub meets ($fact, $wanted) {
    return !!$fact == !!$wanted if JSON::is_bool($wanted);
    my @wanted = ref($wanted) eq 'ARRAY' ? @$wanted : ($wanted);
    for my $one (ref($fact) eq 'ARRAY' ? @$fact : ($fact // '')) {
        return 1 if grep { $_ eq $one } @wanted;
    }
    return 0;
}

=head3 facts

    my $facts = facts($row, $parse, \@arguments);

What rules may ask about: the arguments by name, and what the volume name says.

=cut

sub facts ($row, $parse, $arguments) {
    my %arg;
    @arg{ map { $_->[0] } $row->{args}->@* } = @$arguments;

    my %fact = map { ("option:$_" => $arg{scfg}->{$_}) } keys(($arg{scfg} // {})->%*);
    $fact{$_} = $arg{$_} for grep { exists($arg{$_}) } qw(feature running with_snapshots format);
    $fact{$_} = defined($arg{$_}) for grep { exists($arg{$_}) } qw(snapshot base_snapshot);
    my $formats = ($arg{opts} // {})->{valid_target_formats};
    $fact{target_format} = $formats if $formats;

    if (exists($arg{volname})) {
        my (undef, $is_base);
        ($fact{vtype}, undef, undef, undef, undef, $is_base, $fact{format}) =
            $parse->($arg{volname});
        $fact{state} = $arg{snapname} ? 'snap' : $is_base ? 'base' : 'current';
    }
    return \%fact;
}

1;
