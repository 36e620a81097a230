package PVE::Storage::PyBridge::Forward;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Turns a method's row into the sub that forwards it. Nothing here knows a method by name; what can't
# cross a socket as it is has an argument or result type of its own (contract section 3).

use v5.36;

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;

my $VALUES = 'PVE::Storage::PyBridge::Values'; # loaded where a line says so

# An argument as it goes into the call, by its type: Perl of its expression (1) and its place in @_ (2).
# Strings go as they are; the server knows that they are meant as such, and what can't travel is left
# out when packing fails (PyBridge::Codec). One operation of PVE shares one cache; its address tells
# operations apart (V3).
my %AS = (
    storeid => q[%1$s // ''],
    scfg => 'PVE::Storage::PyBridge::Codec::section(%1$s)',
    cache => 'ref(%1$s) ? 0 + %1$s : undef',
    str => '%1$s',
    hints => '%1$s',
    mutable => '%1$s',
    slurpy => '{ @_[%2$d .. $#_] }', # the rest of the list is a hash
);
my $ENCODED = 'defined(%1$s) ? $encode[%2$d]->(%1$s) : undef'; # all others

# Those that stay here, or do so besides: their name in what the call is told.
my %KEPT = (fd => 'fd', logfunc => 'on_log', blockers => 'blockers', mutable => 'mutable');

# What the answer does besides being returned, by type of argument or result.
my $BOOLEANS = "\$value = ${VALUES}::with_json_booleans(\$value);";
my %EFFECT = (
    mutable => "${VALUES}::mutate(\$plan, \$message, \$more{mutable}, \$extra);",
    blockdev => $BOOLEANS,
    map => $BOOLEANS,
    hook => $BOOLEANS,
    cleanup => "\$value = ${VALUES}::cleanup(\$value, \$plan, \$message);",
);

# What PVE gets in its context: contract section 10, V7.
my %ANSWER = (
    scalar => q[return $value if defined($value) || !wantarray; return;],
    first => q[my @list = shaped($name, $message->[3], 'ARRAY', $value // [])->@*;
        return wantarray ? @list : $list[0];],
    list => q[return shaped($name, $message->[3], 'ARRAY', $value // [])->@*;],
);

=head3 plan

    my $method = plan($manifest, $name, $row);
    my @answer = $class->$method(@arguments);

The sub of a method, compiled from the lines above, because each call runs it: a loop over the arguments,
with a sub for each type, took 63,000 instructions of a small call; all of such a call takes 44,000 now.

=cut

sub plan ($manifest, $name, $row) {
    my (@encode, @values, @more, @effects);
    # what has a place of its own in a message
    my %own = (storeid => q[''], scfg => undef, cache => 'undef');
    my $place = 0; # the class
    for my $argument ($row->{args}->@*) {
        my ($word, $type) = @$argument;
        my $value = '$_[' . ++$place . ']';
        push @more, "$KEPT{$type} => $value" if $KEPT{$type};
        push @effects, $EFFECT{mutable} if $type eq 'mutable';
        $type = 'scfg' if $word eq 'scfg'; # a mutable one, too
        my $as = $AS{$type};
        next if !$as && $KEPT{$type};
        $encode[$place] = encoder($type) if !$as;
        my $perl = sprintf($as // $ENCODED, $value, $place);
        if (exists($own{$type})) {
            $own{$type} = $perl;
        } else {
            push @values, $perl;
        }
    }
    $own{scfg} //= "${VALUES}::section_of($own{storeid})";
    my $plan = { type => $manifest->{type}, method => $name };
    $plan->@{qw(retry deadline)} = $row->@{qw(retry deadline)};

    # $@ is the caller's, not ours (V26); $?, $_, and $! in a call that went well, stay as they are.
    my $code = join(
        "\n",
        'sub {',
        'local $@;',
        @more ? 'my %more = (' . join(', ', @more) . ');' : (),
        "my \$message = ['call', 0, \$name, $own{storeid}, $own{scfg},",
        '    [' . join(', ', @values) . "], $own{cache}];",
        'my ($value, $extra) = PVE::Storage::PyBridge::Client::call($plan, $message'
            . (@more ? ', \%more);' : ');'),
        @effects,
        $EFFECT{ $row->{result} } // (),
        $ANSWER{ $row->{context} },
        '}',
    );
    require PVE::Storage::PyBridge::Values if $code =~ /$VALUES/;
    return eval($code) || die; ## no critic (ProhibitStringyEval): see above
}

sub encoder ($type) {
    require PVE::Storage::PyBridge::Values;
    return PVE::Storage::PyBridge::Values::encoder($type);
}

# What can't be used is said in one line, not in Perl's words about references.
sub shaped ($method, $storeid, $kind, $value) {
    return $value if ref($value) eq $kind;
    die "storage '$storeid': $method: malformed answer of the plugin server\n";
}

1;
