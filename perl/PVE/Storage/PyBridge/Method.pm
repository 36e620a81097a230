package PVE::Storage::PyBridge::Method;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Makes the sub of one method at its first call. What a method does is the name of the object in which
# its row is: forward, static or refuse.

use v5.36;

# Forwarded in one round trip when PVE asks for them in a row.
my %TOGETHER = map { $_ => 1 } qw(check_connection activate_storage status);

=head3 plan

    my $method = plan($class, $name, $stub);
    my @answer = $class->$method(@arguments);

The sub of a method, which takes the place of its stub in the class.

=cut

sub plan ($class, $name, $stub) {
    my $manifest = $class->pybridge_manifest();
    my $made = $manifest->{made};
    my $plan = $made->{plans}->{$name} //= made($manifest, $name);
    my $place = "$made->{package}::$name";
    no strict 'refs'; ## no critic (ProhibitNoStrict): it has no other name
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings): the stub
    *$place = $plan if \&$place == $stub; # somebody may have wrapped it
    return $plan;
}

sub made ($manifest, $name) {
    my $row = $manifest->{methods}->{forward}->{$name};
    if (!$row) {
        require PVE::Storage::PyBridge::Local;
        return PVE::Storage::PyBridge::Local::plan($manifest, $name);
    }
    require PVE::Storage::PyBridge::Forward;
    my $alone = PVE::Storage::PyBridge::Forward::plan($manifest, $name, row($name, $row));
    return $alone if !$TOGETHER{$name};
    require PVE::Storage::PyBridge::Together;
    return PVE::Storage::PyBridge::Together::plan($manifest, $name, $alone);
}

=head3 row

    my $row = row('path', 'first path retry=1 deadline=60.3 scfg volname:str storeid');

The row of a method as a hash, as manifests of version 1 have it: C<context>, C<result>, C<args> as a
list of [name, type], and what else is said with C<=>. An argument without a type has that of its name.

=cut

sub row ($name, $text) {
    return $text if ref($text); # one of version 1
    my ($context, $result, @words) = split(' ', $text);
    die "method '$name': its row says too little: '$text'\n" if !defined($result);
    my %row = (context => $context, result => $result, args => []);
    for my $word (@words) {
        my ($key, $sign, $said) = split(/([:=])/, $word, 2);
        if ($sign && $sign eq '=') {
            $row{$key} = $said;
        } else {
            push $row{args}->@*, [$key, $said // $key];
        }
    }
    return \%row;
}

1;
