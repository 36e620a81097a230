# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Broken frames: valid ones with a value, a type or some bytes changed."""

from __future__ import annotations

import copy
import json
import random
import struct
from pathlib import Path
from typing import Any, Final

import msgpack

GOLDEN: Final = Path(__file__).resolve().parent.parent / "golden" / "frames.json"
HEADER: Final = struct.Struct(">I")

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1),
    *(0.5, -0.0, float("inf"), float("nan"), 1e308),
    *("", "x", "\0", "ü", "a\nb", "../../etc/passwd", "x" * 300, "1" * 40, "-1", "nan"),
    *(b"", b"\xff\xfe", b"\xed\xa0\x80", b"x" * 70_000),
    *([], [[]], [None] * 20, {}, {"": None}, {"x": {"y": [1]}}),
    *(msgpack.ExtType(5, b"x"), msgpack.Timestamp(0, 0)),
)
NAMES: Final = ("", "wire", "type", "fd", "remaining", "operation", "mutable", "message", "errors")
BYTES: Final = (0x00, 0x7F, 0x80, 0x90, 0xC1, 0xC6, 0xC9, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF)


def golden(kinds: frozenset[str]) -> list[list[Any]]:
    """Messages of these kinds among the golden ones."""
    found = []
    for entry in json.loads(GOLDEN.read_text()):
        payload = bytes.fromhex(entry["hex"])[HEADER.size :]
        message = msgpack.unpackb(payload, raw=False, unicode_errors="surrogateescape")
        if message[0] in kinds:
            found.append(message)
    return found


class Mutator:
    """An endless supply of broken frames from a corpus of messages."""

    def __init__(self, corpus: list[list[Any]], seed: int):
        self._corpus = corpus
        self._frames = [framed(pack(message)) for message in corpus]
        self._random = random.Random(seed)

    def frame(self) -> bytes:
        """The next one."""
        pick = self._random
        if pick.random() < 0.75:
            message = copy.deepcopy(pick.choice(self._corpus))
            for _ in range(pick.choice((1, 1, 2, 4))):
                message = self._change(message)
            return framed(pack(message))
        frame = bytearray(pick.choice(self._frames))
        for _ in range(pick.choice((1, 1, 2, 8))):
            self._spoil(frame)
        if pick.random() < 0.7 and len(frame) >= HEADER.size:
            frame[: HEADER.size] = HEADER.pack(len(frame) - HEADER.size)
        return bytes(frame)

    def _change(self, message: Any) -> Any:
        """One node of it replaced, removed, doubled or renamed."""
        pick = self._random
        node, way = message, list[tuple[Any, Any]]()
        while isinstance(node, list | dict) and node and (not way or pick.random() < 0.9):
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            deep = [key for key in keys if isinstance(node[key], list | dict) and node[key]]
            key = pick.choice(deep if deep and pick.random() < 0.85 else keys)
            way.append((node, key))
            node = node[key]
        if not way:
            return pick.choice(VALUES)
        parent, key = way[-1]
        act = pick.random()
        if act < 0.7:
            parent[key] = copy.deepcopy(pick.choice(VALUES))
        elif act < 0.8:
            del parent[key]
        elif isinstance(parent, dict):
            parent[pick.choice(NAMES)] = node
        else:
            parent.insert(key, copy.deepcopy(pick.choice(VALUES)))
        return message

    def _spoil(self, frame: bytearray) -> None:
        """Some bytes changed, inserted, removed or moved."""
        pick = self._random
        at = pick.randrange(len(frame)) if frame else 0
        act = pick.random()
        if act < 0.3 and frame:
            frame[at] ^= 1 << pick.randrange(8)
        elif act < 0.6 and frame:
            frame[at] = pick.choice(BYTES)
        elif act < 0.75:
            frame[at:at] = pick.randbytes(pick.choice((1, 2, 5, 40)))
        elif act < 0.9:
            del frame[at : at + pick.choice((1, 1, 4, 1000))]
        else:
            frame[at : at + 5] = bytes((pick.choice(BYTES), *pick.randbytes(4)))


def pack(message: Any) -> bytes:
    """As the wire has it, whatever it is."""
    payload: bytes = msgpack.packb(message, unicode_errors="surrogateescape")
    return payload


def framed(payload: bytes) -> bytes:
    """With its length before it."""
    return HEADER.pack(len(payload)) + payload
