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
    my @patterns =
        map { { vtype => $_->{vtype}, format => $_->{format}, re => qr/\A(?:$_->{pattern})\z/a } }
        $manifest->{names}->@*;
    my $type = $manifest->{type};
    my %memo;

    return sub ($volname) {
        my $known = $memo{ $volname // '' };
        return @$known if $known;

        for my $pattern (@patterns) {
            next if !defined($volname) || $volname !~ $pattern->{re};
            my %part = %+;
            my $format = $pattern->{format} =~ s/\{format\}/$part{format} \/\/ ''/er;
            my $answer = [
                $pattern->{vtype}, untaint($part{name}), untaint($part{vmid}),
                untaint($part{basename}), untaint($part{basevmid}),
                defined($part{base}) ? 1 : undef,
                untaint($format),
            ];
            %memo = () if keys(%memo) >= MAX_MEMO;
            $memo{$volname} = $answer;
            return @$answer;
        }
        my $shown = ($volname // '') =~ s/[[:cntrl:]]/?/gr; # an error is one line (C-020)
        die "unable to parse $type volume name '$shown'\n";
    };
}

# What a name consists of fits a root-owned pattern, so it may be used (C-019).
sub untaint ($text) {
    return undef if !defined($text);
    my ($clean) = $text =~ /\A(.*)\z/s;
    return $clean;
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
