package PVE::Storage::PyBridge::Forward;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Turns a method's row into the sub that forwards it. Nothing here knows a method by name; what can't
# cross a socket as it is has an argument or result type of its own (contract section 3).

use v5.36;
no warnings 'experimental::builtin'; ## no critic (ProhibitNoWarnings): refaddr, so in Perl 5.36

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;

# An argument as it goes into the call, by its type: Perl in which VALUE is what PVE gave, REST the list
# from there on, and NAME the argument's name. Strings go as they are; the server knows that they are
# meant as such, and what can't travel is left out when packing fails (PyBridge::Codec).
my %AS = (
    (map { $_ => 'VALUE' } qw(str hints mutable)),
    slurpy => '{ REST }', # the rest of the list is a hash
);
my $ENCODED = 'defined(VALUE) ? $encode{NAME}->(VALUE) : undef';

# Those that the message has a place for: the index, and Perl as above.
my %PLACE = (
    storeid => [3, q[VALUE // '']],
    scfg => [4, 'PVE::Storage::PyBridge::Codec::section(VALUE)'],
    # one operation of PVE shares one cache; its address tells operations apart (V3)
    cache => [6, 'ref(VALUE) ? builtin::refaddr(VALUE) : undef'],
);
my @EMPTY = (undef, undef, undef, q[''], 'configuration(STOREID)', undef, 'undef');

# Those that stay here.
my %KEPT = (
    fd => 'fd => descriptor(VALUE)',
    logfunc => 'on_log => VALUE',
    blockers => 'blockers => VALUE',
    mutable => 'mutable => VALUE',
);

# Results that need more than the value itself.
my %FINISH = (
    (
        map { $_ => q[$value = PVE::Storage::PyBridge::Values::with_json_booleans($value);] }
            qw(blockdev map hook)
    ),
    cleanup => q[$value = cleanup($value, $plan, $message);],
);

# What PVE gets in its context: contract section 10, V7.
my %ANSWER = (
    scalar => q[return $value if defined($value) || !wantarray; return;],
    first => q[my @list = shaped($plan->{method}, $message->[3], 'ARRAY', $value // [])->@*;
        return wantarray ? @list : $list[0];],
    list => q[return shaped($plan->{method}, $message->[3], 'ARRAY', $value // [])->@*;],
);

=head3 plan

    my $method = plan($manifest, $name, $row);
    my @answer = $class->$method(@arguments);

The sub of a method, compiled from the lines above, because each call runs it: a loop over the arguments,
with a sub for each type, took 63,000 instructions of a small call; all of such a call takes 44,000 now.

=cut

sub plan ($manifest, $name, $row) {
    my ($method) = $name =~ /\A(\w+)\z/ or die "method '$name' has no proper name\n";
    my $plan = {
        type => $manifest->{type},
        method => $method,
        retry => $row->{retry},
        deadline => $row->{deadline},
        names => [],
    };
    require PVE::Storage::PyBridge::Values
        if $FINISH{ $row->{result} } || grep { !known($_->[1]) } $row->{args}->@*;
    my (%encode, @values, @kept);
    my @message = @EMPTY;
    my $place = 0; # the class
    for my $argument ($row->{args}->@*) {
        my ($word, $type) = $argument->@*;
        $place++;
        my $mutable_section = $word eq 'scfg' && $type eq 'mutable';
        push @kept, filled($KEPT{$type}, $word, $place) if $KEPT{$type};
        if (my $of_message = $PLACE{ $mutable_section ? 'scfg' : $type }) {
            $message[$of_message->[0]] = filled($of_message->[1], $word, $place);
        } elsif (!$KEPT{$type} || $AS{$type}) {
            $encode{$word} = PVE::Storage::PyBridge::Values::encoder($type) if !$AS{$type};
            push @values, filled($AS{$type} // $ENCODED, $word, $place);
            push $plan->{names}->@*, $word;
        }
    }
    $message[4] =~ s/STOREID/$message[3]/;
    my $more = @kept ? '\%more' : 'undef';

    # $@ is the caller's, not ours (V26); $?, $_, and $! in a call that went well, stay as they are.
    my @lines = (
        'local $@;',
        @kept ? 'my %more = (' . join(', ', @kept) . ');' : (),
        "my \$message = ['call', 0, '$method', $message[3], $message[4],",
        '    [' . join(', ', @values) . "], $message[6]];",
        "my (\$value, \$extra) = PVE::Storage::PyBridge::Client::call(\$plan, \$message, $more);",
        (grep { /\Amutable/ } @kept)
        ? 'mutate($plan, $message, $more{mutable}, $extra->{mutable}) if $extra->{mutable};'
        : (),
        $FINISH{ $row->{result} } // (),
        $ANSWER{ $row->{context} },
    );
    my $code = join("\n", 'sub {', @lines, '}');
    return eval($code) || die; ## no critic (ProhibitStringyEval): see above
}

sub known ($type) { return $AS{$type} || $PLACE{$type} || $KEPT{$type}; }

# A piece of Perl for the argument at this place of @_.
sub filled ($perl, $name, $place) {
    my ($word) = $name =~ /\A([a-z_]+)\z/ or die "argument '$name' has no proper name\n";
    my %stands = (VALUE => "\$_[$place]", REST => "\@_[$place .. \$#_]", NAME => $word);
    return $perl =~ s/\b(VALUE|REST|NAME)\b/$stands{$1}/gr;
}

sub descriptor ($value) {
    return ref($value) || ref(\$value) eq 'GLOB' ? fileno($value) : $value;
}

# The section of a storage, for the one method that isn't given it (on_update_hook).
sub configuration ($storeid) {
    return PVE::Storage::PyBridge::Codec::section(PVE::Storage::config()->{ids}->{$storeid});
}

# PVE persists what a hook changed in the hash it was given (V6).
sub mutate ($plan, $message, $hash, $change) {
    my $given = shaped($plan->{method}, $message->[3], 'HASH', $change);
    my $set = shaped($plan->{method}, $message->[3], 'HASH', $given->{set} // {});
    my $delete = shaped($plan->{method}, $message->[3], 'ARRAY', $given->{delete} // []);
    $set = PVE::Storage::PyBridge::Values::with_json_booleans($set);
    $hash->{$_} = $set->{$_} for keys %$set;
    delete $hash->{$_} for @$delete;
    return;
}

# What can't be used is said in one line, not in Perl's words about references.
sub shaped ($method, $storeid, $kind, $value) {
    return $value if ref($value) eq $kind;
    die "storage '$storeid': $method: malformed answer of the plugin server\n";
}

# free_image may leave work for later: a code ref that PVE runs in a task of its own (V5).
sub cleanup ($value, $plan, $message) {
    return undef if !defined($value);
    my $data = shaped($plan->{method}, $message->[3], 'HASH', $value)->{data};
    my $later = { type => $plan->{type}, method => 'free_image_cleanup', names => ['data'] };
    my @call = ('call', 0, $later->{method}, $message->@[3, 4], [$data], $message->[6]);
    return sub {
        PVE::Storage::PyBridge::Client::call($later, \@call);
        return;
    };
}

1;
