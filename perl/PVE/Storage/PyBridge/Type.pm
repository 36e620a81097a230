package PVE::Storage::PyBridge::Type;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Makes the Perl class of one storage type from its manifest. A type needs a class of its own,
# because much of PVE's plugin interface gets neither storage ID nor configuration: the class is all
# that tells plugins apart (D1). What a method does is a word in its row: forward, static or refuse;
# a method without a row is PVE's own base method.

use v5.36;

use PVE::Storage::PyBridge::Guard;
use PVE::Storage::PyBridge::Names;

my %MAKE = (
    forward => \&make_forward,
    static => \&make_static,
    refuse => \&make_refuse,
);

# Forwarded in one round trip when PVE asks for them in a row.
my %TOGETHER = map { $_ => 1 } qw(check_connection activate_storage status);

=head3 generate

    my $package = generate($manifest, $api);

Defines the class for a manifest and returns its name, ready for C<< ->register() >>.

=cut

sub generate ($manifest, $api) {
    my $type = $manifest->{type};
    my $package = 'PVE::Storage::Custom::PyBridge::' . ($type =~ s/-/_/gr);
    my $parse = PVE::Storage::PyBridge::Names::parser($manifest);

    my %subs = (
        api => $api,
        type => sub { return $type; },
        plugindata => plugindata($manifest),
        properties => properties($manifest, $package),
        options => sub { return PVE::Storage::PyBridge::Guard::options($manifest); },
        pybridge_manifest => sub { return $manifest; },
    );
    for my $name (keys $manifest->{methods}->%*) {
        my $row = $manifest->{methods}->{$name};
        my $make = $MAKE{ $row->{call} // '' }
            or die "method '$name': unknown kind of call '" . ($row->{call} // '') . "'\n";
        $subs{$name} = $make->($manifest, $name, $row, $parse);
    }
    $subs{parse_volname} = sub { return $parse->($_[1]); };

    no strict 'refs'; ## no critic (ProhibitNoStrict): defining subs by name is the point
    @{"${package}::ISA"} = ('PVE::Storage::Plugin');
    *{"${package}::$_"} = $subs{$_} for keys %subs;
    return $package;
}

# Called at registration and by every storage_info with formats: fresh structures each time.
sub plugindata ($manifest) {
    return sub {
        return {
            content => [
                map { {
                    map { $_ => 1 } @$_
                } } $manifest->{content}->@*
            ],
            format =>
                [{ map { $_ => 1 } $manifest->{formats}->[0]->@* }, $manifest->{formats}->[1]],
            'sensitive-properties' => { map { $_ => 1 } $manifest->{sensitive}->@* },
        };
    };
}

# Decided once, when init() asks: afterwards our own properties are among the known ones.
sub properties ($manifest, $package) {
    my $decided;
    return sub {
        $decided //= PVE::Storage::PyBridge::Guard::properties($manifest, $package);
        return { map { $_ => { $decided->{$_}->%* } } keys %$decided };
    };
}

sub make_refuse ($manifest, $name, @) {
    return sub { die "storage type '$manifest->{type}' does not support $name\n"; };
}

sub make_forward ($manifest, $name, $row, $) {
    my $forward;
    return sub {
        $forward //= unnoticed(sub {
            require PVE::Storage::PyBridge::Forward;
            return PVE::Storage::PyBridge::Forward::plan($manifest, $name, $row)
                if !$TOGETHER{$name};
            require PVE::Storage::PyBridge::Together;
            return PVE::Storage::PyBridge::Together::plan($manifest, $name, $row);
        });
        goto &$forward;
    };
}

sub make_static ($manifest, $name, $row, $parse) {
    my $static;
    return sub {
        my ($class, @args) = @_;
        $static //= unnoticed(sub {
            require PVE::Storage::PyBridge::Static;
            return PVE::Storage::PyBridge::Static::plan($manifest, $name, $row, $parse);
        });
        return $static->(@args);
    };
}

# What answers a method is loaded by its first call: socket and msgpack code (C-003), and the reading
# of rules. The caller doesn't notice (V26).
sub unnoticed ($load) {
    my ($error, $errno) = ($@, $!);
    my $plan = $load->();
    ($@, $!) = ($error, $errno); ## no critic (RequireLocalizedPunctuationVars): the caller's own
    return $plan;
}

1;
