# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The shim's proof that an answer is whole, against a plain walk: exact, for long lists too.

``PyBridge::Proof`` matches rows in runs once it has met their keys often enough; every case here
is long enough for that, and sound in all but one place.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgpack
import pytest

from pve_pybridge.testing.perl import PerlSession

CODE: Final = """
    require PVE::Storage::PyBridge::Proof;
    return [
        map { my $p = pack('H*', $_); PVE::Storage::PyBridge::Proof::complete(\\$p) ? 1 : 0 }
            @{ JSON::decode_json($ARGS[0]) }
    ];
"""
LEARNT: Final = """
    require PVE::Storage::PyBridge::Proof;
    require PVE::Storage::PyBridge::Rows;
    my $p = pack('H*', $ARGS[0]);
    pos($p) = 0;
    return ref(PVE::Storage::PyBridge::Rows::run(\\$p, ord($p)));
"""
FIXED: Final = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8} | {
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}


def whole(data: bytes) -> bool:
    """The same by a walk, value by value."""
    at, needed = 0, 1
    while needed:
        if at >= len(data):
            return False
        byte, needed = data[at], needed - 1
        at += 1
        if 0x80 <= byte < 0xA0:
            needed += (byte & 15) * (2 if byte < 0x90 else 1)
        elif 0xA0 <= byte < 0xC0:
            at += byte - 0xA0
        elif byte in FIXED:
            at += FIXED[byte]
        elif byte in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF):
            size = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.get(byte, 2 << (byte & 1))
            if at + size > len(data):
                return False
            count = int.from_bytes(data[at : at + size], "big")
            at += size
            if byte < 0xDC:
                at += count
            else:
                needed += count * (2 if byte >= 0xDE else 1)
        elif byte == 0xC1 or 0xC7 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8:
            return False
    return at == len(data)


@pytest.fixture(scope="module")
def perl() -> Iterator[PerlSession]:
    with PerlSession(preload="use PVE::Storage::Plugin; use JSON;") as session:
        row = msgpack.packb({"volid": "x", "size": 1, "vmid": 2})
        assert proven(session, [b"\xdc\x02\x00" + row * 512] * 6) == [True] * 6
        assert session.run(LEARNT, row.hex()).ok() == "Regexp", "runs of rows aren't in use"
        yield session


def proven(session: PerlSession, payloads: list[bytes]) -> list[bool]:
    answer = session.run(CODE, json.dumps([data.hex() for data in payloads]))
    return [bool(one) for one in answer.ok()]


def alike(pick: random.Random, n: int) -> dict[str, Any]:
    volid = f"s:vm-{n}-disk-{pick.randrange(99)}"
    return {"volid": volid, "size": 1 << pick.randrange(64), "vmid": n}


def ragged(pick: random.Random, n: int) -> dict[str, Any]:
    row = alike(pick, n)
    row["notes"] = "ü" * pick.choice((0, 15, 16, 127, 128, 200))
    row["verification"] = {"state": "ok", "upid": "x" * 40}
    row["more"] = [None, True, 0.5, -pick.randrange(1 << 40), b"\xff" * pick.randrange(300)]
    return {key: row[key] for key in row if key == "volid" or pick.random() < 0.7}


def mixed(pick: random.Random, n: int) -> dict[str, Any]:
    return alike(pick, n) if pick.random() < 0.98 else ragged(pick, n)


@pytest.mark.parametrize("make", [alike, mixed, ragged])
@pytest.mark.parametrize("seed", range(4))
def test_exact(perl: PerlSession, make: Callable[[random.Random, int], Any], seed: int) -> None:
    pick = random.Random(seed)
    rows = [make(pick, n) for n in range(90, pick.choice((160, 280, 420)))]
    sound = msgpack.packb(["part", 1, rows])
    cases = [sound, sound + b"\0", sound[:-1], sound[:1]]
    for _ in range(150):
        broken, at = bytearray(sound), pick.randrange(len(sound))
        match pick.randrange(4):
            case 0:
                broken[at] = pick.randrange(256)
            case 1:
                broken[at] = pick.choice((0xC1, 0xDC, 0xDD, 0xDE, 0xDF, 0xD9, 0xDB, 0x85, 0xA5))
            case 2:
                del broken[at : at + pick.randrange(1, 100)]
            case _:
                broken[at:at] = pick.randbytes(pick.randrange(1, 20))
        cases.append(bytes(broken))
    expected = [whole(case) for case in cases]
    assert expected[:4] == [True, False, False, False]
    assert {True, False} <= set(expected[4:]), "this would prove nothing"
    assert proven(perl, cases) == expected


def test_many_shapes_are_not_learnt(perl: PerlSession) -> None:
    """A server of ever new keys gets slower answers, not the caller's memory."""
    shapes = [[{f"key-{shape}": n, "x": "y" * 9} for n in range(500)] for shape in range(60)]
    lists = [msgpack.packb(rows) for rows in shapes]
    assert proven(perl, lists) == [True] * 60
    assert proven(perl, [one[:-1] for one in lists]) == [False] * 60
    learnt = [perl.run(LEARNT, msgpack.packb(rows[0]).hex()).ok() for rows in shapes]
    assert 10 < learnt.count("Regexp") < 40
