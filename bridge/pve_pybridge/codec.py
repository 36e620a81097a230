# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames ↔ messages (D8).  No I/O: the server and the tests bring the bytes.

A frame is a 4-byte big-endian length and one msgpack array, whose first element names its kind.
``FIELDS`` is the one list of kinds; docs/protocol.md describes it and a test compares the two.
"""

from __future__ import annotations

import struct
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
    "scfg": (dict, type(None)),
    "args": (dict,),
    "meta": (dict,),
    "extra": (dict,),
    "error": (dict,),
    "value": (object,),
    "rows": (list,),
}


def encode(kind: str, *values: object) -> bytes:
    """One frame; ProtocolError when it would exceed the limit."""
    packer = msgpack.Packer(autoreset=False, unicode_errors="surrogateescape")
    packer.pack([kind, *values])
    payload = packer.getbuffer()  # a view: the payload of a long list is copied once only
    if len(payload) > MAX_FRAME:
        raise ProtocolError(
            f"{kind} frame of {len(payload)} bytes exceeds the limit of {MAX_FRAME}"
        )
    frame: bytes = HEADER.pack(len(payload)) + payload
    return frame


def decode_length(header: bytes) -> int:
    """Payload length from a frame's first four bytes; ProtocolError when it is over the limit."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise ProtocolError(f"frame of {length} bytes exceeds the limit of {MAX_FRAME}")
    return int(length)


def decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Kind and named fields of one payload; ProtocolError says what is wrong with it."""
    try:
        message = msgpack.unpackb(
            payload,
            raw=False,
            unicode_errors="surrogateescape",
        )
    except (ValueError, msgpack.exceptions.UnpackException) as err:
        raise ProtocolError(f"frame is no msgpack: {str(err) or type(err).__name__}") from None
    if not isinstance(message, list) or not message or not isinstance(message[0], bytes | str):
        raise ProtocolError("frame is no array that starts with its kind")
    kind = message[0]
    kind = kind if type(kind) is str else text(kind)
    names = FIELDS.get(kind)
    if names is None:
        raise ProtocolError(f"unknown kind of frame {kind[:40]!r}")
    if len(message) <= len(names):
        missing = names[len(message) - 1]
        raise ProtocolError(f"{kind} frame lacks '{missing}'")
    fields = dict(zip(names, message[1:], strict=False))
    for name, value in fields.items():
        if not isinstance(value, TYPES[name]):
            raise ProtocolError(f"{kind} frame: '{name}' is {type(value).__name__}")
    return kind, fields
