package PVE::Storage::PyBridge::Sequence;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The answers to several questions that travelled in one message.

use v5.36;

use PVE::Storage::PyBridge::Client;

my (@nothing, @yes); # the usual answers, by the number of the call

=head3 answers

    my $first = answers($connection, $plan, $id, $more, $ends, $then);

Reads the answer to a call and to the methods in C<$then>, those that go with it, and returns the first; all
are left in C<< $more->{answers} >>, messages in this order. Only the first where C<$then> is undef: the
server is older or the connection new.

=cut

sub answers ($connection, $plan, $id, $more, $ends, $then) {
    my @answers = answer($connection, $plan, $id, $more, $ends);
    for (@{ $then // [] }) {
        my ($kind, undef, $value) = $answers[-1]->@*;
        last if $kind ne 'result' || (defined($value) && !$value); # the server's rule, too
        push @answers, answer($connection, $plan, ++$id, $more, $ends);
    }
    $connection->{id} = $id;
    $more->{answers} = \@answers;
    return $answers[0];
}

sub answer ($connection, $plan, $id, $more, $ends) {
    return short_answer($connection, $id)
        // PVE::Storage::PyBridge::Client::one_answer($connection, $plan, $id, $more, $ends);
}

# Nothing or yes, if that has come.
sub short_answer ($connection, $id) {
    my $rest = $connection->{rest} // return undef;
    my $nothing = $nothing[$id] //= PVE::Storage::PyBridge::Client::nothing($id);
    my $front = substr($rest, 0, length($nothing));
    my $yes = $front eq ($yes[$id] //= $nothing =~ s/\xc0\x80\z/\x01\x80/r);
    return undef if !$yes && $front ne $nothing;
    if (length($rest) > length($front)) {
        substr($connection->{rest}, 0, length($front), '');
    } else {
        delete $connection->{rest};
    }
    return ['result', $id, $yes ? 1 : undef, {}];
}

1;
