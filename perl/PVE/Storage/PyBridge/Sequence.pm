package PVE::Storage::PyBridge::Sequence;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Several questions that travel in one message, and their answers.

use v5.36;

use PVE::Storage::PyBridge::Client;

# What is left out where a later answer says that it went well.
my $WELL = ['result', 0, 1, {}];

=head3 plan

    my $plan = plan($type, \@methods, $deadline);

The plan of calls in a row with the same storage and nothing else, each if the one before didn't fail or
say no; the deadline is for all of them.

=cut

sub plan ($type, $methods, $deadline) {
    return {
        type => $type, method => $methods->[0], row => "@$methods", calls => scalar(@$methods),
        read => \&answers, retry => 1, deadline => $deadline
    };
}

=head3 ask

    my @answers = ask($plan, $message);

Messages in the order of the calls, at least one; what kept them from being made is one, too.

=cut

sub ask ($plan, $message) {
    my ($value, $extra);
    my $answered =
        eval { ($value, $extra) = PVE::Storage::PyBridge::Client::call($plan, $message); 1 };
    return ['died', 0, $@] if !$answered;
    return @$value if $value && !$extra; # each for itself, see below
    return (($WELL) x ($plan->{calls} - 1), ['result', 0, $value, $extra]);
}

# All of them as the value of one message, which ends the call.
sub answers ($connection, $plan, $id, $last, $ends) {
    require PVE::Storage::PyBridge::Answer;
    my @answers;
    while ($id <= $last) {
        my $answer =
            PVE::Storage::PyBridge::Answer::end_of($connection, $plan, $id, $last, {}, $ends);
        my ($kind, $number, $value) = @$answer;
        push @answers, ($WELL) x ($number - $id), $answer;
        last if $kind ne 'result' || (defined($value) && !$value); # the server's rule, too
        $id = $number + 1;
    }
    return ['result', $id, \@answers, undef];
}

1;
