# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::SectionConfig;

# Typed sections in a text file, one class per type. Nothing here knows about storages.

use strict;
use warnings;

use Digest::SHA qw(sha1_hex);

use PVE::JSONSchema;

# The state of one kind of configuration, shared by all its classes (contract 1.8).
sub private { die "overwrite me\n" }

sub type { die "overwrite me\n" }
sub properties { return {} }
sub options { return {} }
sub plugindata { return {} }

sub register {
    my ($class) = @_;
    my $pdata = $class->private();
    my $type = $class->type();
    die "duplicate plugin registration (type = $type)\n" if $pdata->{plugins}->{$type};
    $pdata->{plugindata}->{$type} = $class->plugindata();
    $pdata->{plugins}->{$type} = $class;
}

sub lookup {
    my ($class, $type) = @_;
    die "cannot lookup undefined type!\n" if !defined($type);
    return $class->private()->{plugins}->{$type} // die "unknown section type '$type'\n";
}

sub lookup_types {
    my ($class) = @_;
    return [sort keys %{ $class->private()->{plugins} }];
}

# One namespace for the properties of all types. Nobody catches what dies here (T-01).
sub init {
    my ($class) = @_;
    my $pdata = $class->private();
    my ($plugins, $known) = @{$pdata}{qw(plugins propertyList)};
    for my $type (keys %$plugins) {
        my $properties = $plugins->{$type}->properties();
        for my $name (keys %$properties) {
            die "duplicate property '$name'\n" if $known->{$name};
            # Whether a value is required is for options() to say.
            $known->{$name} = { %{ $properties->{$name} }, optional => 1 };
        }
    }
    for my $type (keys %$plugins) {
        my $options = $plugins->{$type}->options();
        for my $name (keys %$options) {
            die "undefined property '$name' in the options of type '$type'\n" if !$known->{$name};
        }
        $pdata->{options}->{$type} = $options;
    }
    $known->{type}->{enum} = [sort keys %$plugins];
}

my sub schema {
    my ($class, $extra) = @_;
    my $properties = { %{ $class->private()->{propertyList} }, %$extra };
    return { type => 'object', properties => $properties, additionalProperties => 0 };
}

sub createSchema {
    my ($class) = @_;
    return schema($class, {});
}

sub updateSchema {
    my ($class) = @_;
    my $text = { type => 'string', optional => 1 };
    return schema($class, { delete => $text, digest => $text, type => $text });
}

# One value as it is in the file. A line with a key only is a true boolean.
sub check_value {
    my ($class, $type, $key, $value, $id, $skip_schema) = @_;
    my $pdata = $class->private();
    return $value if $key eq 'type';
    my $options = $pdata->{options}->{$type} or die "unknown section type '$type'\n";
    die "unexpected property '$key'\n" if !$options->{$key};
    my $schema = $pdata->{propertyList}->{$key};
    my $kind = $schema->{type} // 'string';
    $value = 1 if $kind eq 'boolean' && (!defined($value) || $value eq '');
    die "got undefined value\n" if !defined($value);
    for my $element (ref($value) eq 'ARRAY' ? @$value : $value) {
        die "property '$key' contains a line feed\n" if $element =~ m/[\n\r]/;
    }
    if (!$skip_schema) {
        PVE::JSONSchema::check_prop($value, $schema, '', my $errors = {});
        die "$_\n" for values %$errors;
    }
    $value += 0 if $kind =~ m/^(?:boolean|integer|number)$/;
    return $value;
}

sub decode_value {
    my ($class, $type, $key, $value) = @_;
    return $value;
}

sub encode_value {
    my ($class, $type, $key, $value) = @_;
    return $value;
}

sub check_config {
    my ($class, $id, $config, $create, $skip_schema) = @_;
    my $type = $class->type();
    my $options = $class->private()->{options}->{$type} or die "unknown section type '$type'\n";
    my $settings = { type => $type };
    for my $key (sort keys %$config) {
        next if $key eq 'type' || !defined($config->{$key});
        die "can't change value of fixed parameter '$key'\n"
            if !$create && $options->{$key} && $options->{$key}->{fixed};
        my $value = $class->check_value($type, $key, $config->{$key}, $id, $skip_schema);
        $value = $class->decode_value($type, $key, $value);
        $settings->{$key} = $value if defined($value);
    }
    if ($create) {
        for my $key (sort keys %$options) {
            next if $options->{$key}->{optional} || defined($settings->{$key});
            die "missing value for required option '$key'\n";
        }
    }
    return $settings;
}

sub parse_section_header {
    my ($class, $line) = @_;
    return $line =~ m/^(\S+):\s*(\S+)\s*$/ ? (lc($1), $2, undef, {}) : ();
}

sub format_section_header {
    my ($class, $type, $id) = @_;
    return "$type: $id\n";
}

# A property goes into the section, or dies.
my sub parse_property {
    my ($class, $section, $key, $value) = @_;
    my ($type, $id, $config) = @$section{qw(type id config)};
    my $schema = $class->private()->{propertyList}->{$key} // die "unknown property type\n";
    if (($schema->{type} // '') eq 'array') {
        my $list = $section->{plugin}->check_value($type, $key, [$value], $id);
        push @{ $config->{$key} }, @$list;
        return;
    }
    die "duplicate attribute\n" if defined($config->{$key});
    $config->{$key} = $section->{plugin}->check_value($type, $key, $value, $id);
}

# A section begins with its header and ends with an empty line, and only with that. Bad lines cost
# the line, a bad header or an unknown type the section, and a section whose check_config dies stays,
# as undef (contract 0.3, 0.4). The last of two with the same ID counts.
sub parse_config {
    my ($class, $filename, $raw) = @_;
    $raw //= '';
    my ($ids, $order, $count, $number, @errors) = ({}, {}, 0, 0);
    my ($section, $place);

    my $begin = sub {
        my ($line) = @_;
        my ($type, $id, $error, $config) = $class->parse_section_header($line);
        return warn "$place - ignore config line: $line\n" if !$config;
        my $plugin = $class->private()->{plugins}->{$type};
        $error //= "unsupported type '$type'\n" if !$plugin;
        warn "$place (skip section '$id'): $error" if $error;
        $section =
            { type => $type, id => $id, config => $config, plugin => $plugin, skip => $error };
    };
    my $line_of_section = sub {
        my ($line) = @_;
        my ($id, $key, $value) = ($section->{id}, $line =~ m/^\s+(\S+)(?:\s+(.*\S))?\s*$/);
        return warn "$place (section '$id') - ignore config line: $line\n" if !defined($key);
        return if eval { parse_property($class, $section, $key, $value); 1 };
        warn "$place (section '$id') - unable to parse value of '$key': $@";
        push @errors, { context => $place, section => $id, key => $key, err => $@ };
    };
    my $end = sub {
        my ($type, $id, $config, $plugin, $skip) = @$section{qw(type id config plugin skip)};
        $section = undef;
        return if $skip;
        $config->{type} = $type;
        $ids->{$id} = eval { $plugin->check_config($id, $config, 1, 1) };
        warn "$place (skip section '$id'): $@" if $@;
        $order->{$id} = ++$count;
    };

    for my $line (split(/\n/, $raw), '') {
        $number++;
        next if $line =~ m/^\s*#/;
        if (!$line) { # so even by a zero
            $end->() if $section;
            next;
        }
        $place = "file $filename line $number";
        if (!$section) {
            $begin->($line);
        } elsif (!$section->{skip}) {
            $line_of_section->($line);
        }
    }
    my $cfg = { ids => $ids, order => $order, digest => sha1_hex($raw) };
    $cfg->{errors} = \@errors if @errors;
    return $cfg;
}

my sub value_lines {
    my ($schema, $key, $value) = @_;
    my $kind = $schema->{type} // 'string';
    my @values = ref($value) eq 'ARRAY' ? @$value : ($value);
    die "property '$key' contains a line feed\n" if grep { m/[\n\r]/ } $key, @values;
    return "\t$key " . ($value ? 1 : 0) . "\n" if $kind eq 'boolean';
    return join('', map { "\t$key $_\n" } grep { "$_" ne '' } @values);
}

# Only what was parsed is written (contract 1.7). encode_value is asked of the base class.
sub write_config {
    my ($class, $filename, $cfg) = @_;
    my $pdata = $class->private();
    my ($ids, $order) = @{$cfg}{qw(ids order)};
    my $place = sub { $order->{ $_[0] } // 1 << 30 };
    my %first = (comment => 0, disable => 1);
    my $text = '';
    for my $id (sort { $place->($a) <=> $place->($b) || $a cmp $b } keys %$ids) {
        my $section = $ids->{$id}
            or die "unable to write section '$id' of '$filename': it has no type\n";
        my $type = $section->{type};
        my $options = $pdata->{options}->{$type} or die "unknown section type '$type'\n";
        $text .= $class->format_section_header($type, $id);
        for my $key (sort keys %$options) {
            next if $options->{$key}->{optional} || defined($section->{$key});
            die "section '$id' - missing value for required option '$key'\n";
        }
        my $rank = sub { $first{ $_[0] } // ($options->{ $_[0] }->{optional} ? 3 : 2) };
        # What isn't an option of the type is left out.
        my @keys = grep { defined($section->{$_}) } keys %$options;
        for my $key (sort { $rank->($a) <=> $rank->($b) || $a cmp $b } @keys) {
            if ($key eq 'disable') {
                $text .= "\tdisable\n" if $section->{$key};
                next;
            }
            my $value = $class->encode_value($type, $key, $section->{$key});
            $text .= value_lines($pdata->{propertyList}->{$key}, $key, $value);
        }
        $text .= "\n";
    }
    return $text;
}

sub assert_if_modified {
    my ($cfg, $digest) = @_;
    die "detected modified configuration - file changed by other user? Try again.\n"
        if defined($digest) && $digest ne $cfg->{digest};
}

1;
