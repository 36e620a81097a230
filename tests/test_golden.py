# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""tests/golden/frames.json: the wire, byte by byte, as Python and Perl read and write it.

``hex`` is the frame, ``message`` what it says ({"$bin": hex} are bytes), ``perl`` the code whose
value the shim would send as this message. Perl orders maps at random and knows one type of string
only, so its frames are compared by what Python reads in them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pve_pybridge import codec
from pve_pybridge.testing.perl import PerlSession

FRAMES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "frames.json").read_text()
)
BY_NAME = pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame["name"])
FROM_PERL = pytest.mark.parametrize(
    "frame", [frame for frame in FRAMES if "perl" in frame], ids=lambda frame: frame["name"]
)
FROM_SERVER = pytest.mark.parametrize(
    "frame", [frame for frame in FRAMES if "perl" not in frame], ids=lambda frame: frame["name"]
)

DUMP = r"""
    use B;
    use PVE::Storage::PyBridge::Codec;
    sub dump_value {
        my ($value) = @_;
        return 'undef' if !defined($value);
        return $value ? 'true' : 'false' if ref($value) eq 'Data::MessagePack::Boolean';
        return [map { dump_value($_) } @$value] if ref($value) eq 'ARRAY';
        return { map { $_ => dump_value($value->{$_}) } keys %$value } if ref($value) eq 'HASH';
        my $flags = B::svref_2object(\$value)->FLAGS;
        if (!($flags & B::SVf_POK)) {
            return sprintf('float %s', unpack('H*', pack('d>', $value))) if $flags & B::SVf_NOK;
            return "int $value";
        }
        return "ascii $value" if $value !~ /[^\x00-\x7f]/;
        my $kind = utf8::is_utf8($value) ? 'characters' : 'bytes';
        utf8::encode($value) if utf8::is_utf8($value);
        return "$kind " . unpack('H*', $value);
    }
"""


@pytest.fixture(scope="module")
def perl() -> Iterator[PerlSession]:
    with PerlSession(preload="use PVE::Storage::Plugin;") as session:
        session.run(DUMP).ok()
        yield session


def message_of(frame: dict[str, Any]) -> list[Any]:
    """The message as Python holds it."""
    found: list[Any] = _real(frame["message"])
    return found


def _real(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$bin"}:
            return bytes.fromhex(value["$bin"])
        return {key: _real(item) for key, item in value.items()}
    return [_real(item) for item in value] if isinstance(value, list) else value


def dumped(value: Any) -> Any:
    """What Perl's dump_value says of it: strings by kind unless they are ASCII, numbers by type."""
    match value:
        case dict():
            return {key: dumped(item) for key, item in value.items()}
        case list():
            return [dumped(item) for item in value]
        case None:
            return "undef"
        case bool():
            return str(value).lower()
        case int():
            return f"int {value}"
        case float():
            return f"float {struct.pack('>d', value).hex()}"
        case str():
            return f"ascii {value}" if value.isascii() else f"characters {value.encode().hex()}"
        case bytes():
            return f"ascii {value.decode()}" if value.isascii() else f"bytes {value.hex()}"
    raise AssertionError(type(value))


def typed(value: Any) -> Any:
    """Something that differs when a type does: 1, 1.0 and True are equal in Python."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


def in_bytes(value: Any) -> Any:
    """Perl sends all strings as bytes, characters in UTF-8; everything else must have its type."""
    if isinstance(value, dict):
        return {in_bytes(key): in_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def test_every_kind_of_frame_is_there() -> None:
    assert {frame["message"][0] for frame in FRAMES} == set(codec.FIELDS)
    assert len({frame["name"] for frame in FRAMES}) == len(FRAMES)
    assert all(frame["description"] for frame in FRAMES)


@BY_NAME
def test_python_writes_it(frame: dict[str, Any]) -> None:
    assert codec.encode(*message_of(frame)).hex() == frame["hex"]


@BY_NAME
def test_python_reads_it(frame: dict[str, Any]) -> None:
    data = bytes.fromhex(frame["hex"])
    assert codec.decode_length(data[:4]) == len(data) - 4
    assert typed(codec.decode(data[4:])) == typed(message_of(frame))


@FROM_SERVER
def test_perl_reads_it(perl: PerlSession, frame: dict[str, Any]) -> None:
    answer = perl.run(
        """
        my $buffer = pack('H*', $ARGS[0]);
        my ($message, $size) = PVE::Storage::PyBridge::Codec::decode(\\$buffer);
        return [$size, dump_value($message)];
        """,
        frame["hex"] + "0000",  # what follows is none of its business
        taint_args=True,
    )
    size, message = answer.ok()
    assert size == len(frame["hex"]) // 2
    assert message == dumped(message_of(frame))


@pytest.mark.contract("C-019")
@FROM_SERVER
def test_nothing_perl_reads_is_tainted(perl: PerlSession, frame: dict[str, Any]) -> None:
    answer = perl.run(
        """
        my $buffer = pack('H*', $ARGS[0]);
        return [PVE::Storage::PyBridge::Codec::decode(\\$buffer)];
        """,
        frame["hex"],
        taint_args=True,
    )
    assert answer.ok()
    assert not answer.tainted


@FROM_PERL
def test_perl_writes_it(perl: PerlSession, frame: dict[str, Any]) -> None:
    code = f"return unpack('H*', PVE::Storage::PyBridge::Codec::encode({frame['perl']}));"
    data = bytes.fromhex(perl.run(code).ok())
    assert len(data) == codec.decode_length(data[:4]) + 4
    kind, *values = codec.decode(data[4:])
    message = message_of(frame)
    assert kind == message[0]
    assert typed(in_bytes(values)) == typed(in_bytes(message[1:]))


def test_perl_waits_for_the_rest(perl: PerlSession) -> None:
    code = """
        my @found;
        for my $length (0 .. length($ARGS[0]) / 2 - 1) {
            my $buffer = pack('H*', substr($ARGS[0], 0, 2 * $length));
            push @found, $length if PVE::Storage::PyBridge::Codec::decode(\\$buffer);
        }
        return \\@found;
    """
    for frame in FRAMES:
        assert perl.run(code, frame["hex"]).ok() == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("04000001", "answer of 67108865 bytes exceeds the limit of 67108864"),
        ("ffffffff", "answer of 4294967295 bytes exceeds the limit of 67108864"),
        ("00000001c1", "answer is no msgpack array"),
        ("0000000181", "answer is no msgpack array"),
        ("0000000180", "answer is no msgpack array"),
        ("0000000190", "answer is no msgpack array"),
        ("00000000", "answer is no msgpack array"),
    ],
)
def test_perl_refuses_what_is_no_message(perl: PerlSession, data: str, message: str) -> None:
    code = """
        my $buffer = pack('H*', $ARGS[0]);
        eval { PVE::Storage::PyBridge::Codec::decode(\\$buffer) };
        return $@;
    """
    assert perl.run(code, data).ok() == {"lost": 1, "message": message}


def test_perl_refuses_to_send_what_is_too_long(perl: PerlSession) -> None:
    code = """
        eval { PVE::Storage::PyBridge::Codec::encode(['x' x (64 << 20)]) };
        return $@;
    """
    message = "request of 67108870 bytes exceeds the limit of 67108864"
    assert perl.run(code).ok() == {"message": message}
