package PVE::Storage::PyBridge::Type;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Makes the Perl class of one storage type from its manifest. A type needs a class of its own,
# because much of PVE's plugin interface gets neither storage ID nor configuration: the class is all
# that tells plugins apart (D1). This here is what those classes have in common, PVE's questions at
# its start; all else is a stub until it is called, see Method.pm, because every PVE process pays for
# what is made here. A method without a row is PVE's own base method.

use v5.36;

use PVE::Storage::PyBridge::Guard;
use PVE::Storage::PyBridge::Method;

our @ISA = ('PVE::Storage::Plugin'); # base.pm takes 0.05 ms

my %KIND = (forward => 1, static => 1, refuse => 1);

my (%stub, %pattern); # what types share

=head3 generate

    my $package = generate($manifest);

Defines the class for a manifest and returns its name, ready for C<< ->register() >>.

=cut

sub generate ($manifest) {
    my $package = 'PVE::Storage::Custom::PyBridge::' . ($manifest->{type} =~ tr/-/_/r);
    my $methods = $manifest->{methods};
    no strict 'refs'; ## no critic (ProhibitNoStrict): the class has no other name
    my ($class, $isa) = (\%{"${package}::"}, \@{"${package}::ISA"});
    use strict 'refs';

    for my $kind (keys %$methods) {
        die "methods of an unknown kind of call, '$kind'\n" if !$KIND{$kind};
        my @names = keys $methods->{$kind}->%*;
        $stub{$_} // stub($_) for @names;
      # a reference in place of a glob is a sub to Perl, as it leaves its own: a quarter of the time
        $class->@{@names} = @stub{@names};
    }
    $class->{parse_volname} = $stub{parse_volname} // stub('parse_volname');
    # never from a row: it would be asked before anything may be called
    delete $class->@{qw(api type plugindata properties options private register)};
    compiled($_->{pattern}) for $manifest->{names}->@*;

    $manifest->{made} = { package => $package }; # what the shim adds, see also Method.pm
    $class->{pybridge_manifest} = sub { return $manifest };
    @$isa = (__PACKAGE__);
    return $package;
}

# At once, though it may never be needed: a pattern that Perl can't read costs its type (C-008). Types
# share patterns, and one takes 0.1 ms.
sub compiled ($pattern) { return $pattern{$pattern} //= qr/\A(?:$pattern)\z/a }

# Stands for the method of this name in all types, until its first call.
sub stub ($name) {
    die "method '$name' has no proper name\n" if $name =~ /[^a-z_0-9]/;
    return $stub{$name} = sub { unshift(@_, $name); goto &first_call };
}

my $half_loaded; # whether a file has been

# What answers is loaded now: socket and msgpack code (C-003), and the reading of rules. The caller
# doesn't notice (V26).
sub first_call {
    my ($name, $class) = (shift, @_);
    my $plan = do {
        local ($@, $!);
        local $SIG{__WARN__} = $half_loaded ? \&not_again : $SIG{__WARN__};
        eval { PVE::Storage::PyBridge::Method::plan($class, $name, $stub{$name}); }
            // do { my $err = $@; forget_half_loaded(); die $err; };
    };
    goto &$plan;
}

# A signal's handler may die while a file is being loaded, and Perl would refuse that file for good.
sub forget_half_loaded () {
    my @half = grep { !defined($INC{$_}) } keys %INC;
    delete @INC{@half};
    $half_loaded ||= @half;
    return;
}

# What the first half of such a file had defined is defined once more.
sub not_again ($warning) {
    print STDERR $warning if $warning !~ /\ASubroutine \S+ redefined /;
    return;
}

*api = \&PVE::Storage::Custom::PyBridge::api;

sub type { return $_[0]->pybridge_manifest()->{type} }

# Called at registration and by every storage_info with formats: fresh structures each time.
sub plugindata {
    my ($content, $formats, $sensitive) =
        $_[0]->pybridge_manifest()->@{qw(content formats sensitive)};
    return {
        content => [map { set(@$_) } @$content],
        format => [set($formats->[0]->@*), $formats->[1]],
        'sensitive-properties' => set(@$sensitive),
    };
}

sub set {
    return { map { $_ => 1 } @_ };
}

# Decided once, when init() asks: afterwards our own properties are among the known ones.
sub properties {
    my $manifest = $_[0]->pybridge_manifest();
    my $made = $manifest->{made};
    my $decided = $made->{properties} //=
        PVE::Storage::PyBridge::Guard::properties($manifest, $made->{package});
    return { map { $_ => { $decided->{$_}->%* } } keys %$decided };
}

sub options { return PVE::Storage::PyBridge::Guard::options($_[0]->pybridge_manifest()) }

1;
