# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backends that hang, servers that restart, crowds, and a node that runs for months."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator

from faults_util import IDLE_THREADS

from .farm import Entry, Farm, until
from .figures import Figure, at_most, none_failed, within

MEMORY_MIB = 1.0
"""Growth of the second half of a run that still counts as flat."""


def failures(entries: list[Entry]) -> list[str]:
    """What went wrong, and wrong answers."""
    return [
        f"{entry.kind} {entry.outcome}"
        for entry in entries
        if entry.error or entry.outcome == "WRONG" or entry.kind == "died"
    ]


def hang(farm: Farm, short: bool) -> Iterator[Figure]:
    """A backend that hangs costs its own storage only, and only as long as it hangs."""
    callers, questions = (40, 1) if short else (20, 50)
    farm.start()
    stuck: dict[str, object] = {"storeid": "stuck", "scfg": farm.scfg("hang-c", gate=farm.gate)}
    healthy: dict[str, object] = {"storeid": "healthy", "each": 1}
    threads = [farm.proc("Threads")]
    with farm.shut_gate():
        others = farm.callers(
            2, ["status", "attribute"], **healthy, until=time.monotonic() + 3600, pause=0.05
        )
        asking = farm.callers(callers, ["status"], **stuck, each=1, count=questions)
        while asking.alive():
            threads.append(farm.proc("Threads"))
            time.sleep(0.1)
        asked = asking.join(1)
        for pid in others.alive():
            os.kill(pid, signal.SIGKILL)
        beside = others.join(5)
        # the backend is back, but what hangs in it never returns
        farm.gate.rename(farm.gate.with_suffix(".old"))
        forever = recovered(farm, stuck)
    farm.kill()

    farm.start()
    with farm.shut_gate():
        farm.callers(callers, ["status"], **stuck, each=1, count=1).join(10)
    released = recovered(farm, stuck)

    tried = callers * questions
    inactive = [entry.outcome for entry in asked if entry.outcome != "inactive"]
    yield none_failed("answers that say inactive", tried, inactive)
    yield within("status of the hung storage", [entry.seconds for entry in asked], 3.5)
    # a thread for each connection and each stuck run, two of our own
    bound = threads[0] + 2 * callers + 2 + 16
    yield at_most("threads meanwhile", len(threads), max(threads), bound, "threads")
    yield none_failed("calls of other storages", len(beside), failures(beside))
    typical = statistics.median(entry.seconds for entry in beside)
    yield within("calls of other storages", [entry.seconds for entry in beside], 0.5)
    yield at_most("median of those", len(beside), typical * 1000, 50, "ms")
    yield within("figures again after the backend came back", [released], 10)
    yield within("the same, though the stuck calls never return", [forever], 25)


def recovered(farm: Farm, job: dict[str, object]) -> float:
    """Seconds until status tells figures again."""

    def figures() -> bool:
        (entry,) = farm.callers(1, ["status"], **job, each=1, count=1).join(10)
        return entry.outcome == "ok"

    return until(figures, 120)


def restarts(farm: Farm, short: bool) -> Iterator[Figure]:
    """TERM and the next process every second: 32 busy callers don't notice."""
    rounds = 6 if short else 60
    scfg = farm.scfg("sleep", delay=0.005, journal=farm.journal)
    farm.start()
    callers = farm.callers(
        32, ["attribute", "alloc", "status"], scfg=scfg, each=1, until=time.monotonic() + rounds
    )
    for _ in range(rounds - 1):
        time.sleep(1)
        farm.kill(signal.SIGTERM)
        farm.start()
    entries = callers.join(30)
    worst = max(entry.seconds for entry in entries)
    yield none_failed(f"calls across {rounds - 1} restarts", len(entries), failures(entries), worst)
    changes = {tag: n for tag, n in farm.executed().items() if not tag.startswith("status-")}
    repeated = [tag for tag, count in changes.items() if count > 1]
    yield none_failed("changes executed at most once", len(changes), repeated)


def crowd(farm: Farm, short: bool) -> Iterator[Figure]:
    """Everybody at once."""
    number = 64 if short else 256
    farm.start()
    scfg = farm.scfg("sleep", delay=0.2)
    begin = time.monotonic() + (1 if short else 3)
    callers = farm.callers(
        number, ["attribute", "alloc", "attribute"], scfg=scfg, at=begin, each=1, count=3
    )
    entries = callers.join(60)
    lost = failures(entries) + ["missing"] * (3 * number - len(entries))
    worst = max(entry.seconds for entry in entries)
    yield none_failed(f"calls of {number} processes at once", 3 * number, lost, worst)


def settled(farm: Farm) -> tuple[int, int, int]:
    """Memory, descriptors, threads once those who left are gone: the least within two seconds.

    What leaks stays, so the least is the truth; what is on its way out isn't counted.
    """
    samples = []
    for _ in range(40):
        samples.append((farm.descriptors(), max(farm.proc("Threads"), IDLE_THREADS)))
        time.sleep(0.05)
    return (
        farm.proc("VmRSS"),
        min(descriptors for descriptors, _ in samples),
        min(threads for _, threads in samples),
    )


def soak(farm: Farm, short: bool) -> Iterator[Figure]:
    """Many calls, callers that come and go, and one that lives as long as pvestatd."""
    part = 200 if short else 1
    calls, cycles, coming = 1_000_000 // part, 100_000 // part, 200 if not short else 20
    farm.start()
    farm.callers(4, ["attribute", "status", "alloc"], count=50).join(30)  # warm
    pvestatd = farm.callers(1, ["status"], count=cycles)
    (statd,) = pvestatd.pids
    started = time.monotonic()
    each = (calls - cycles) // 3 // 2
    entries: list[Entry] = []
    figures: list[tuple[int, int, int]] = []
    crowd_size = max(1, coming // 50)
    for _ in range(2):  # the second half must not need more than the first
        busy = farm.callers(3, ["attribute", "alloc", "status"], count=each)
        for _ in range(coming // 2 // crowd_size):
            entries += farm.callers(crowd_size, ["attribute"], count=5).join(60)
        entries += busy.join(1200)
        figures.append(settled(farm))
    entries += pvestatd.join(600)
    totals = [entry for entry in entries if entry.kind == "total"]
    made = sum(int(entry.tag) for entry in totals)
    rate = made / (time.monotonic() - started)
    (cycler,) = [entry for entry in pvestatd.entries() if entry.kind == "total"]
    worst = max(entry.end for entry in totals)
    lost = failures([entry for entry in entries if entry.kind != "total"])
    yield none_failed(f"calls, {rate:.0f}/s, {coming} callers coming and going", made, lost, worst)
    (memory, fds, threads), (memory2, fds2, threads2) = figures
    grown = (memory2 - memory) / 1024
    yield at_most("server's memory, second half", made, grown, MEMORY_MIB, "MiB")
    yield at_most("server's descriptors, second half", made, fds2 - fds, 0, "more")
    yield at_most("server's threads, second half", made, threads2 - threads, 0, "more")
    kept = int(float(cycler.outcome)) / 1024
    assert cycler.tag == str(cycles), statd
    yield at_most("caller's memory, second half of its cycles", cycles, kept, MEMORY_MIB, "MiB")
