# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames ↔ messages (D8).  No I/O: the server and the tests bring the bytes.

A frame is a 4-byte big-endian length and one msgpack array, whose first element names its kind.
``FIELDS`` is the one list of kinds; docs/protocol.md describes it and a test compares the two.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from .coerce import text
from .errors import ProtocolError

WIRE_VERSION: Final = 1
"""Version of the framing and the message kinds; a peer with another one is refused."""
MAX_FRAME: Final = 64 << 20
"""Bytes of payload; a longer frame is refused before it is read."""
HEADER: Final = struct.Struct(">I")

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    # client → server
    "hello": ("about",),
    "call": ("id", "method", "storeid", "scfg", "args", "meta"),
    "cancel": ("id",),
    # server → client
    "welcome": ("about",),
    "part": ("id", "rows"),
    "result": ("id", "value", "extra"),
    "error": ("id", "error"),
    "log": ("id", "level", "message"),
    "alive": ("id",),
}
"""Message kind → the fields that follow it in the array.  Surplus fields are ignored."""

TYPES: Final[dict[str, tuple[type, ...]]] = {
    "id": (int,),
    "about": (dict,),
    "method": (bytes, str),
    "storeid": (bytes, str),
    "level": (bytes, str),
    "message": (bytes, str),
    "scfg": (dict, bytes, type(None)),
    "args": (dict, list),
    "meta": (dict, int, type(None)),
    "extra": (dict,),
    "error": (dict,),
    "value": (object,),
    "rows": (list,),
}
_KINDS: Final = {
    spelt: (kind, ((bytes, str), *(TYPES[name] for name in names)), len(names) + 1)
    for kind, names in FIELDS.items()
    for spelt in (kind, kind.encode())
}
"""Kind as it may be spelt → itself, the types of a message, how long that is."""
_USUAL: Final = frozenset(
    (bytes, int, bytes, bytes, bytes, list, meta) for meta in (int, type(None), dict)
)
"""Types of a call in its short form; one look at all of them says what the loop would say."""
_KEPT: Final = 1 << 18
"""Bytes of a frame, after a longer one its packer's memory is given back."""


class _Packers(threading.local):
    """A packer for each thread: making one takes longer than packing a small answer."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(unicode_errors="surrogateescape")


_packers = _Packers()


def encode(kind: str, *values: object) -> bytes:
    """One frame; ProtocolError when it would exceed the limit."""
    payload = _packers.packer.pack((kind, *values))
    length = len(payload)
    if length > _KEPT:
        _packers.packer = msgpack.Packer(unicode_errors="surrogateescape")
        if length > MAX_FRAME:
            raise ProtocolError(f"{kind} frame of {length} bytes exceeds the limit of {MAX_FRAME}")
    frame: bytes = HEADER.pack(length) + payload
    return frame


_NOTHING: Final = [encode("result", number, None, {}) for number in range(128)]
_YES: Final = [encode("result", number, 1, {}) for number in range(len(_NOTHING))]
_WENT_WELL: Final = frozenset([*_NOTHING, *_YES])


def result(number: int, value: object, extra: Mapping[str, object]) -> bytes:
    """The frame of a call's answer; that of what only changes something is there already."""
    if value is None and not extra and 0 <= number < len(_NOTHING):
        return _NOTHING[number]
    return encode("result", number, value, extra)


def says_yes(frame: bytes) -> bool:
    """Whether a result says no more than that its call went well."""
    return frame in _WENT_WELL


def decode_length(frame: bytes) -> int:
    """Payload length from a frame's first four bytes; ProtocolError when it is over the limit."""
    length: int = HEADER.unpack_from(frame)[0]
    if length > MAX_FRAME:
        raise ProtocolError(f"frame of {length} bytes exceeds the limit of {MAX_FRAME}")
    return length


def decode(payload: bytes) -> list[Any]:
    """The message in one payload: its kind and its fields, each of its type.

    ProtocolError says what is wrong with any other payload.
    """
    message = unpack(payload, "frame")
    try:
        if tuple(map(type, message)) in _USUAL and message[0] == b"call":
            message[0] = "call"
            usual: list[Any] = message
            return usual
        kind, types, length = _KINDS[message[0]]
    except (TypeError, LookupError):
        raise ProtocolError(_flaw_of_kind(message)) from None
    if len(message) < length or not all(map(isinstance, message, types)):
        raise ProtocolError(_flaw_of_fields(kind, message))
    message[0] = kind
    del message[length:]
    found: list[Any] = message
    return found


def unpack(data: bytes, what: str) -> Any:
    """Whatever *data* holds; ProtocolError when *what* is no msgpack."""
    try:
        return msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape")
    except (ValueError, msgpack.exceptions.UnpackException) as err:
        raise ProtocolError(f"{what} is no msgpack: {str(err) or type(err).__name__}") from None


def named(message: Sequence[Any]) -> dict[str, Any]:
    """The fields of a message by their names."""
    return dict(zip(FIELDS[message[0]], message[1:], strict=False))


def _flaw_of_fields(kind: str, message: Sequence[object]) -> str:
    names, values = FIELDS[kind], message[1:]
    if len(values) < len(names):
        return f"{kind} frame lacks '{names[len(values)]}'"
    pairs = zip(names, values, strict=False)
    name, value = next((name, it) for name, it in pairs if not isinstance(it, TYPES[name]))
    return f"{kind} frame: '{name}' is {type(value).__name__}"


def _flaw_of_kind(message: object) -> str:
    if not isinstance(message, list) or not message or not isinstance(message[0], bytes | str):
        return "frame is no array that starts with its kind"
    return f"unknown kind of frame {text(message[0])[:40]!r}"
