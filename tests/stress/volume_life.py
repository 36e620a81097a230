# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the volumes of a guest must be: steps of their life, each done and each predicted.

A step that was cut off has happened or not, or stopped at a known place in between: it says all the
states that are allowed afterwards, in the order in which they are reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from qemu_util import MIB, Qemu, Store

BYTES = "abcdefghijklmnopqrstuvwxyz"
UNIT = MIB


@dataclass(frozen=True)
class Life:
    """One volume: its size, its first byte, and both as they were at each snapshot."""

    size: int
    byte: str = "\0"
    snapshots: Mapping[str, tuple[int, str]] = field(default_factory=dict)


State = Mapping[str, Life]
"""Volume name, in PVE's form, → what it is."""


@dataclass(frozen=True)
class Step:
    """Something to do, and the states on the way; the last one is when it is done."""

    what: str
    do: Callable[[Store], object]
    states: tuple[State, ...]


def plain(volname: str) -> str:
    """Without the base of a linked clone."""
    return volname.rpartition("/")[2]


def choose(
    chance: random.Random, state: State, vmid: int, store: Store, qemu: Qemu | None, shown: str
) -> Step:
    """Some step that must be possible; *shown* is the volume that *qemu* has, if any."""
    steps = [_create(chance, state, vmid)] if len(state) < 4 else []
    for volname in state:
        if volname == shown and qemu is not None:
            steps.append(_guest_write(chance, state, volname, qemu))
            if store.type == "pynbd":  # pyloop needs reflinks for it
                steps += _snapshots(chance, state, volname, attached=True)
        elif plain(volname).startswith("base-"):
            steps += _of_base(state, volname, vmid, store)
        else:
            steps += _of_volume(chance, state, volname)
    return chance.choice(steps)


def _create(chance: random.Random, state: State, vmid: int) -> Step:
    size = chance.randrange(1, 9) * UNIT
    after = {**state, _next_name(state, vmid): Life(size)}
    return Step("create", lambda store: store.alloc(size // 1024, vmid=vmid), (state, after))


def _guest_write(chance: random.Random, state: State, volname: str, qemu: Qemu) -> Step:
    byte = chance.choice(BYTES)
    after = {**state, volname: replace(state[volname], byte=byte)}
    return Step("guest's write", lambda _: qemu.io(f"write -P {ord(byte)} 0 4k"), (state, after))


def _of_base(state: State, base: str, vmid: int, store: Store) -> list[Step]:
    new = _next_name(state, vmid)
    depends = store.type == "pynbd"
    clone = {**state, (f"{plain(base)}/{new}" if depends else new): replace(state[base])}
    steps = []
    if len(state) < 5:
        steps.append(
            Step("clone", lambda s: s.call("vdisk_clone", s.volid(base), vmid), (state, clone))
        )
    if not any(volname.startswith(f"{plain(base)}/") for volname in state):
        steps.append(_free(state, base))
    return steps


def _of_volume(chance: random.Random, state: State, volname: str) -> list[Step]:
    life = state[volname]
    byte, size = chance.choice(BYTES), life.size + chance.randrange(1, 4) * UNIT
    written = {**state, volname: replace(life, byte=byte)}
    grown = {**state, volname: replace(life, size=size)}
    steps = [
        Step("write", lambda store: store.write(store.volid(volname), byte), (state, written)),
        _free(state, volname),
        *_snapshots(chance, state, volname, attached=False),
    ]
    if size < 24 * UNIT:
        steps.append(
            Step(
                "resize",
                lambda store: store.call("volume_resize", store.volid(volname), size, 0),
                (state, grown),
            )
        )
    if not life.snapshots and not any(plain(other).startswith("base-") for other in state):
        prefix = volname.removesuffix(plain(volname))
        base = prefix + "base-" + plain(volname).removeprefix("vm-")
        after = {base if name == volname else name: one for name, one in state.items()}
        steps.append(
            Step(
                "template",
                lambda store: store.call("vdisk_create_base", store.volid(volname)),
                (state, after),
            )
        )
    return steps


def _snapshots(chance: random.Random, state: State, volname: str, *, attached: bool) -> list[Step]:
    life = state[volname]
    steps = []
    if len(life.snapshots) < 2:
        name = next(n for n in ("one", "two") if n not in life.snapshots)
        taken = replace(life, snapshots={**life.snapshots, name: (life.size, life.byte)})
        steps.append(_on_snapshot("volume_snapshot", state, volname, name, taken))
    if life.snapshots:
        name = chance.choice(sorted(life.snapshots))
        left = {key: one for key, one in life.snapshots.items() if key != name}
        without = replace(life, snapshots=left)
        steps.append(_on_snapshot("volume_snapshot_delete", state, volname, name, without))
        if not attached and name == list(life.snapshots)[-1]:
            size, byte = life.snapshots[name]
            back = replace(life, size=size, byte=byte)
            steps.append(_on_snapshot("volume_snapshot_rollback", state, volname, name, back))
    return steps


def _on_snapshot(function: str, state: State, volname: str, name: str, after: Life) -> Step:
    def do(store: Store) -> object:
        return store.call(function, store.volid(volname), name)

    return Step(function, do, (state, {**state, volname: after}))


def _free(state: State, volname: str) -> Step:
    """The snapshots go first, the latest at the start; the volume is still there then."""
    life = state[volname]
    names = list(life.snapshots)
    on_the_way = [
        {**state, volname: replace(life, snapshots={n: life.snapshots[n] for n in names[:left]})}
        for left in range(len(names), -1, -1)
    ]
    gone = {name: one for name, one in state.items() if name != volname}
    return Step(
        "free", lambda store: store.call("vdisk_free", store.volid(volname)), (*on_the_way, gone)
    )


def _next_name(state: State, vmid: int) -> str:
    taken = {plain(name).removeprefix("base-").removeprefix("vm-") for name in state}
    return next(f"vm-{vmid}-disk-{n}" for n in range(99) if f"{vmid}-disk-{n}" not in taken)
