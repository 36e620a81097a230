# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::JSONSchema;

# The part of the schema language that storage properties use (contract 1.4): flat, scalars and
# arrays of scalars, named formats, property strings.

use strict;
use warnings;

use PVE::Exception qw(raise_param_exc);

use base 'Exporter';
our @EXPORT_OK = qw(
    register_format register_standard_option get_standard_option parse_property_string
    parse_boolean validate check_prop
);

my (%format, %standard);

sub register_format {
    my ($name, $format) = @_;
    die "JSON schema format '$name' already registered\n" if $format{$name};
    $format{$name} = $format;
}

sub get_format {
    my ($name) = @_;
    return $format{$name};
}

sub register_standard_option {
    my ($name, $schema) = @_;
    die "standard option '$name' already registered\n" if $standard{$name};
    $standard{$name} = $schema;
}

sub get_standard_option {
    my ($name, $override) = @_;
    my $schema = $standard{$name} or die "no such standard option '$name'\n";
    return { %$schema, %{ $override // {} } };
}

sub parse_boolean {
    my ($text) = @_;
    return undef if !defined($text);
    return 1 if $text =~ m/^(?:1|on|yes|true)$/i;
    return 0 if $text =~ m/^(?:0|off|no|false)$/i;
    return undef;
}

# Every verifier has the same shape: the value, or undef / a death.
my sub verifier {
    my ($regex, $what) = @_;
    return sub {
        my ($value, $noerr) = @_;
        return $1 if $value =~ m/^($regex)$/;
        return undef if $noerr;
        if ($what =~ m/ID$/) {
            die "$what '$value' cannot be shorter than 2 characters\n" if length($value) < 2;
            die "$what '$value' contains illegal characters\n";
        }
        die "value does not look like a valid $what\n";
    };
}

# At least two characters (contract 2.0).
my $storage_id = verifier(qr/[A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]/, 'storage ID');
my $node_name = verifier(qr/[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?/, 'node name');

sub parse_storage_id { return $storage_id->(@_) }
sub pve_verify_storage_id { return $storage_id->(@_) }
sub pve_verify_node_name { return $node_name->(@_) }

register_format('pve-storage-id', $storage_id);
register_format('pve-node', $node_name);
register_format('pve-vmid', verifier(qr/[1-9][0-9]{2,8}/, 'VM ID number'));
register_format('string', sub { $_[0] });

my $limit = { type => 'number', minimum => 0, optional => 1 };
register_format(
    'bwlimit',
    { map { $_ => $limit } qw(default restore migration clone move) },
);
my $keep = { type => 'integer', minimum => 0, optional => 1 };
register_format(
    'prune-backups',
    {
        'keep-all' => { type => 'boolean', optional => 1 },
        map { ("keep-$_" => $keep) } qw(last hourly daily weekly monthly yearly),
    },
);

my %string_option = (
    'pve-storage-id' => 'pve-storage-id',
    'pve-node' => 'pve-node',
    'pve-node-list' => 'pve-node-list',
    'bwlimit' => 'bwlimit',
    'prune-backups' => 'prune-backups',
);
for my $name (keys %string_option) {
    register_standard_option($name, { type => 'string', format => $string_option{$name} });
}
register_standard_option('pve-vmid', { type => 'integer', minimum => 100, maximum => 999999999 });
register_standard_option(
    'pve-storage-image-format',
    { type => 'string', enum => [qw(raw qcow2 subvol vmdk)] },
);

# "key=value,key=value" after a format: a hash of schemas, or the name of one.
sub parse_property_string {
    my ($format, $text) = @_;
    if (!ref($format)) {
        my $name = $format;
        $format = $format{$name} or die "unknown format '$name'\n";
    }
    my ($default_key) = grep { $format->{$_}->{default_key} } sort keys %$format;
    my ($res, $errors) = ({}, {});
    for my $part (split(/,/, $text)) {
        next if $part =~ m/^\s*$/;
        my ($key, $value) = $part =~ m/^([^=]+)=(.*)$/ ? ($1, $2) : ($default_key, $part);
        die "value without key, but schema does not define a default key\n" if !defined($key);
        die "duplicate key in comma-separated list property: $key\n" if exists($res->{$key});
        my $schema = $format->{$key} or die "invalid format - unknown key '$key'\n";
        $value = parse_boolean($value) // $value if ($schema->{type} // '') eq 'boolean';
        check_prop($value, $schema, $key, $errors);
        $res->{$key} = $value;
    }
    for my $key (sort keys %$format) {
        next if $format->{$key}->{optional} || exists($res->{$key});
        $errors->{$key} //= 'property is missing and it is not optional';
    }
    raise_param_exc($errors) if %$errors;
    return $res;
}

sub check_format {
    my ($name, $value) = @_;
    return parse_property_string($name, $value) if ref($name);
    my $registered = $format{$name};
    if (!$registered && $name =~ m/^(.+)-opt$/) {
        return undef if !length($value);
        return check_format($1, $value);
    }
    if (!$registered && $name =~ m/^(.+)-list$/) {
        my $element = $1;
        check_format($element, $_) for grep { length } split(/[,;\s\0]+/, $value);
        return $value;
    }
    die "undefined format '$name'\n" if !$registered;
    return parse_property_string($registered, $value) if ref($registered) eq 'HASH';
    return $registered->($value) // die "value does not match format '$name'\n";
}

my %type_regex = (
    boolean => qr/[01]/,
    integer => qr/[+-]?\d+/,
    number => qr/[+-]?(?:\d+(?:\.\d*)?|\.\d+)/,
);

my sub complaint {
    my ($value, $schema) = @_;
    my $type = $schema->{type} // 'string';
    if (my $regex = $type_regex{$type}) {
        return "type check ('$type') failed - got '$value'" if $value !~ m/^$regex\z/;
        my ($min, $max) = @{$schema}{qw(minimum maximum)};
        return "value must have a minimum value of $min" if defined($min) && $value < $min;
        return "value must have a maximum value of $max" if defined($max) && $value > $max;
    } elsif (ref($value)) {
        return "type check ('$type') failed";
    }
    my ($shortest, $longest) = @{$schema}{qw(minLength maxLength)};
    return "value must be at least $shortest characters long"
        if defined($shortest) && length($value) < $shortest;
    return "value may only be $longest characters long"
        if defined($longest) && length($value) > $longest;
    my $pattern = $schema->{pattern};
    return 'value does not match the regex pattern'
        if defined($pattern) && $value !~ m/^$pattern\z/;
    my $enum = $schema->{enum};
    return "value '$value' does not have a value in the enumeration '" . join(', ', @$enum) . "'"
        if $enum && !grep { $_ eq $value } @$enum;
    if ($schema->{format}) {
        eval { check_format($schema->{format}, $value) };
        return "invalid format - $@" if $@;
    }
    return undef;
}

# Adds to %$errors instead of dying, so that all bad fields are named at once.
sub check_prop {
    my ($value, $schema, $path, $errors) = @_;
    my $text;
    if (!defined($value)) {
        $text = 'property is missing and it is not optional' if !$schema->{optional};
    } elsif (($schema->{type} // '') eq 'array') {
        return $errors->{$path} = "type check ('array') failed" if ref($value) ne 'ARRAY';
        check_prop($value->[$_], $schema->{items}, "$path\[$_]", $errors) for 0 .. $#$value;
    } else {
        # JSON booleans are booleans, '' is not (contract V9).
        my $plain = ref($value) =~ m/Boolean$/ ? ($value ? 1 : 0) : $value;
        $text = complaint($plain, $schema);
    }
    $errors->{$path} = $text if defined($text);
}

# One flat object; true, or a PVE::Exception with one error per field.
sub validate {
    my ($object, $schema, $message) = @_;
    my $errors = {};
    my $properties = $schema->{properties};
    for my $key (sort keys %$object) {
        if (my $property = $properties->{$key}) {
            check_prop($object->{$key}, $property, $key, $errors);
        } elsif (!($schema->{additionalProperties} // 1)) {
            $errors->{$key} = 'property is not defined in schema and the schema does not allow'
                . ' additional properties';
        }
    }
    for my $key (sort keys %$properties) {
        next if exists($object->{$key}) || $properties->{$key}->{optional};
        $errors->{$key} = 'property is missing and it is not optional';
    }
    return 1 if !%$errors;
    raise_param_exc($errors) if !defined($message);
    die PVE::Exception->new($message, code => 400, errors => $errors);
}

1;
