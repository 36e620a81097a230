package PVE::Storage::PyBridge::Forward;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Turns a method's row into the sub that forwards it. Nothing here knows a method by name; what can't
# cross a socket as it is has an argument or result type of its own (contract section 3).

use v5.36;

use Scalar::Util qw(refaddr);

use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Codec;

# How an argument enters the call, by its type: Perl in which VALUE is what PVE gave, REST the list
# from there on, and NAME the argument's name. What can't travel goes into %more.
my %TAKE = (
    storeid => q[$message->[3] = '' . (VALUE // '');],
    scfg => q[$message->[4] = plain(VALUE // {});],
    # one operation of PVE shares one cache; its address tells operations apart (V3)
    cache => q[$meta{operation} = "$$-" . refaddr(VALUE) if ref(VALUE);],
    fd => q[$more{fd} = descriptor(VALUE); $meta{fd} = 1;],
    logfunc => q[$more{on_log} = VALUE if VALUE;],
    blockers => q[$more{blockers} = VALUE;],
    mutable => q[$more{mutable} = VALUE; $args{NAME} = plain(VALUE);],
    slurpy => q[$args{NAME} = plain({ REST });], # the rest of the list is a hash
    str => q[$args{NAME} = '' . VALUE if defined(VALUE);],
    hints => q[$args{NAME} = plain(VALUE) if defined(VALUE);],
);
my $ENCODED = q[$args{NAME} = $encode{NAME}->(VALUE) if defined(VALUE);];

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

The sub of a method. It is compiled from the lines above: a loop over the arguments, with a sub for
each type, took 63,000 instructions of a small call under -T, this takes 30,000.

=cut

sub plan ($manifest, $name, $row) {
    my $plan = {
        type => $manifest->{type},
        method => $name,
        retry => $row->{retry},
        deadline => $row->{deadline},
    };
    require PVE::Storage::PyBridge::Values
        if $FINISH{ $row->{result} } || grep { !$TAKE{ $_->[1] } } $row->{args}->@*;
    my (%encode, @lines);
    for my $i (0 .. $row->{args}->$#*) {
        my ($argument, $type) = $row->{args}->[$i]->@*;
        $encode{$argument} = PVE::Storage::PyBridge::Values::encoder($type) if !$TAKE{$type};
        push @lines, taking($argument, $type, $i + 1); # after the class
    }
    push @lines, '$message->[4] = configuration($message->[3]);'
        if !grep { $_->[0] eq 'scfg' } $row->{args}->@*;
    push @lines,
        'my ($value, $extra) = PVE::Storage::PyBridge::Client::call($plan, $message, \%more);',
        'mutate($plan, $message, $more{mutable}, $extra->{mutable}) if $extra->{mutable};',
        $FINISH{ $row->{result} } // (),
        $ANSWER{ $row->{context} };

    my $code = join("\n", 'sub {', <<~'PERL', @lines, '}');
        local ($@, $!); # the caller's, not ours (V26); $? and $_ nothing here touches
        my (%args, %meta, %more);
        my $message = ['call', 0, $plan->{method}, '', undef, \%args, \%meta];
        PERL
    return eval($code) || die; ## no critic (ProhibitStringyEval): saves half, see above
}

# The line that takes one argument off @_.
sub taking ($name, $type, $place) {
    my ($word) = $name =~ /\A([a-z_]+)\z/ or die "argument '$name' has no proper name\n";
    my $line = $TAKE{$type} // $ENCODED;
    $line = $TAKE{scfg} . ' $more{mutable} = VALUE;' if $type eq 'mutable' && $word eq 'scfg';
    my %stands = (VALUE => "\$_[$place]", REST => "\@_[$place .. \$#_]", NAME => $word);
    return $line =~ s/\b(VALUE|REST|NAME)\b/$stands{$1}/gr;
}

*plain = \&PVE::Storage::PyBridge::Codec::plain;

sub descriptor ($value) {
    return ref($value) || ref(\$value) eq 'GLOB' ? fileno($value) : $value;
}

# The section of a storage, for the one method that isn't given it (on_update_hook).
sub configuration ($storeid) {
    return plain(PVE::Storage::config()->{ids}->{$storeid} // {});
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
    my $later = { type => $plan->{type}, method => 'free_image_cleanup' };
    my @call = ('call', 0, $later->{method}, $message->@[3, 4], { data => $data }, $message->[6]);
    return sub {
        PVE::Storage::PyBridge::Client::call($later, \@call, {});
        return;
    };
}

1;
