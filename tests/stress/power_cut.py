# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Power cuts: everything of two guests is killed at a random point of their volumes' lives.

Afterwards every volume is as before or after the step that was cut off, the storage lists exactly
what exists, and no file, loop device or daemon is left that belongs to nothing.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pve_pybridge.qemu.detached import pid_of
from qemu_util import CFG, Qemu, Store, nbd_store

from .farm import Farm
from .figures import Figure, none_failed, within
from .volume_life import Life, State, choose, plain

VMIDS = (100, 101)
Files = Callable[[str, Life], list[str]]


class Guest:
    """A guest's volumes, and the process that works on them."""

    def __init__(self, store: Store, vmid: int, stack: contextlib.ExitStack):
        self.vmid = vmid
        self.store = copy.copy(store)
        self.store.perl = stack.enter_context(store.node.session()).run
        self.state: State = {}
        self.allowed: tuple[State, ...] = ({},)
        self.steps: Counter[str] = Counter()
        self.cut: str | None = None
        """The step that was cut off."""
        self.failure: str | None = None
        """What went wrong before anything was cut."""

    def live(
        self, chance: random.Random, qemu: Qemu | None, shown: str, off: threading.Event
    ) -> None:
        """Step after step until one fails."""
        self.cut = None
        while True:
            step = choose(chance, self.state, self.vmid, self.store, qemu, shown)
            self.allowed = step.states
            try:
                step.do(self.store)
            except (Exception, AssertionError) as err:  # whatever it is, it must come from the cut
                self.cut = step.what
                if not off.is_set():
                    self.failure = f"{step.what}: {err}"
                return
            self.steps[step.what] += 1
            self.state = step.states[-1]
            if off.is_set():
                self.allowed = (self.state,)
                return

    def look(self) -> State:
        """The volumes as PVE sees them: size, data and snapshots of each."""
        found: dict[str, Life] = {}
        for one in self.store.call("vdisk_list", self.store.id, self.vmid)[self.store.id]:
            volid = one["volid"]
            size, byte = int(one["size"]), self.store.read(volid)
            self.store.call("deactivate_volumes", [volid])
            names = self.store.perl(SNAPSHOTS, volid).ok()
            snapshots = {name: (0, self.store.read(volid, name)) for name in names}
            found[volid.partition(":")[2]] = Life(size, byte, snapshots)
        return found

    def check(self) -> str | None:
        """What is wrong with what is there; it is the state to go on with."""
        found = self.look()
        for allowed in self.allowed:
            if {name: _comparable(one) for name, one in allowed.items()} == {
                name: _comparable(one) for name, one in found.items()
            }:
                self.state = allowed
                return None
        return f"after {self.cut}: found {found}, allowed: {self.allowed}"


SNAPSHOTS = f"""
    {CFG}
    my $info = PVE::Storage::volume_snapshot_info($cfg, $ARGS[0]);
    [sort grep {{ $_ ne 'current' }} keys %$info]
"""


def _comparable(life: Life) -> tuple[int, str, dict[str, str]]:
    return life.size, life.byte, {name: byte for name, (_, byte) in life.snapshots.items()}


def power_cut_pyloop(farm: Farm, short: bool) -> Iterator[Figure]:
    """Files behind loop devices: snapshots are files of their own."""
    folder = farm.node.base / "folder"
    folder.mkdir()
    store = Store(farm.node, "pyloop", "lo", folder)
    farm.node.add("lo", "pyloop", pyloop_folder=folder, content="images")

    def files(volname: str, life: Life) -> list[str]:
        return [f"{volname}.raw", *(f"{volname}@{name}.raw" for name in life.snapshots)]

    def left() -> list[str]:
        done = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True)
        devices = [line for line in done.stdout.splitlines() if f"{folder}/" in line]
        links = (farm.node.base / "pve-pybridge-loop" / "lo").iterdir()
        return [*devices, *map(str, links)]

    yield from _cuts(store, 12 if short else 500, files, left)


def power_cut_pynbd(farm: Farm, short: bool) -> Iterator[Figure]:
    """qcow2 behind a storage daemon: a cut takes that as well, or only the server."""

    def files(volname: str, life: Life) -> list[str]:
        return [f"{plain(volname)}.qcow2"]

    with nbd_store(farm.node) as store:

        def left() -> list[str]:
            pids = [f"process of {path}" for path in store.run.glob("*pid") if pid_of(path)]
            return pids + [
                str(path) for kind in ("map", "wanted") for path in store.run.glob(f"{kind}/*")
            ]

        yield from _cuts(store, 12 if short else 500, files, left)


def _cuts(
    store: Store, rounds: int, files: Files, left: Callable[[], list[str]]
) -> Iterator[Figure]:
    chance = random.Random(4)
    wrong: list[str] = []
    failed: list[str] = []
    orphans: list[str] = []
    answers: list[float] = []
    cut: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        guests = [Guest(store, vmid, stack) for vmid in VMIDS]
        for number in range(rounds):
            _one_round(store, guests, chance, use_qemu=number % 3 == 0, everything=number % 2 == 0)
            started = time.monotonic()
            store.restart()
            store.call("activate_storage", store.id)
            answers.append(time.monotonic() - started)
            for guest in guests:
                cut[guest.cut or "between two steps"] += 1
                wrong += filter(None, [guest.check()])
                failed += filter(None, [guest.failure])
                guest.failure = None
            volumes = {name: one for guest in guests for name, one in guest.state.items()}
            expected = {file for name, one in volumes.items() for file in files(name, one)}
            orphans += [f"file {f}" for f in expected ^ set(os.listdir(store.folder))]
            orphans += left()
            if wrong or failed or orphans:
                break  # what follows would only follow from it
        steps = sum((guest.steps for guest in guests), Counter())
    shown = ", ".join(f"{what} {number}" for what, number in cut.most_common())
    yield none_failed(f"cuts ({shown})", number + 1, failed)
    yield none_failed("volumes lost or changed", steps.total(), wrong)
    yield none_failed("orphaned files, devices, daemons", number + 1, orphans)
    yield within("server and storage back after a cut", answers, 10.0)


def _one_round(
    store: Store, guests: list[Guest], chance: random.Random, *, use_qemu: bool, everything: bool
) -> None:
    with contextlib.ExitStack() as stack:
        off = threading.Event()
        qemu, shown = None, ""
        first = guests[0]
        candidates = [name for name in first.state if not plain(name).startswith("base-")]
        if use_qemu and candidates:
            shown = chance.choice(candidates)
            base = store.node.base / "qemu"
            base.mkdir(exist_ok=True)
            qemu = stack.enter_context(Qemu(base))
            first.store.call("activate_volumes", [first.store.volid(shown)])
            qemu.attach(first.store.blockdev(first.store.volid(shown)), "raw")
        threads = [
            threading.Thread(
                target=guest.live,
                args=(random.Random(chance.random()), qemu if guest is first else None, shown, off),
            )
            for guest in guests
        ]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.01, 0.6))
        off.set()
        _kill(store, qemu, everything=everything)
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive(), "a call hangs although the server is gone"


def _kill(store: Store, qemu: Qemu | None, *, everything: bool) -> None:
    """The server and QEMU; *everything*: its commands and daemons as well, as when power fails."""
    server = store.server.process.pid
    doomed = [server]
    if everything:
        os.kill(server, signal.SIGSTOP)  # so that it starts nothing while we look
        doomed += _descendants(server)
        doomed += [pid for path in store.run.glob("*pid") if (pid := pid_of(path))]
    if qemu is not None:
        doomed.append(qemu.pid)
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    store.server.process.wait(10)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found
