# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers and callers that are killed in the middle of calls."""

from __future__ import annotations

import bisect
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator

from faults_util import IDLE_THREADS

from .farm import Callers, Entry, Farm, until
from .figures import Figure, none_failed, within

CALLERS = 16
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGALRM)


def kill_server(farm: Farm, short: bool) -> Iterator[Figure]:
    """SIGKILL during calls: everybody hears of it within a second, nothing happens twice."""
    kills = 100 if short else 10_000
    chance = random.Random(1)
    scfg = farm.scfg("sleep", delay=0.004, journal=farm.journal)
    callers = farm.callers(
        CALLERS, ["attribute", "alloc"], scfg=scfg, each=1, until=time.monotonic() + 3600
    )
    times = []
    for _ in range(kills):
        farm.start()
        time.sleep(chance.uniform(0.01, 0.03))
        times.append(farm.kill())
    farm.start()
    time.sleep(0.5)
    for pid in callers.alive():
        os.kill(pid, signal.SIGKILL)
    entries = callers.join(5)
    hit = [entry for entry in entries if struck(times, entry) is not None]
    during = {struck(times, entry) for entry in hit}
    lost = [entry for entry in entries if entry.error]
    executed = farm.executed()

    yield none_failed(f"{kills} servers killed during calls", kills, missed(kills, len(during)))
    delays = [entry.end - (struck(times, entry) or 0) for entry in hit]
    yield within("answer or error after the kill", delays, 1.0)
    wrong = [f"{e.kind} {e.tag}" for e in entries if e.outcome == "WRONG"]
    yield none_failed("replies that belong to their calls", len(entries), wrong)
    twice = [tag for tag, count in executed.items() if count > 1]
    yield none_failed("changes executed at most once", len(executed), twice)
    promised = [e.tag for e in entries if e.kind == "alloc" and e.outcome == "ok"]
    undone = [tag for tag in promised if executed[tag] != 1]
    yield none_failed("changes answered, so executed", len(promised), undone)
    strange = {e.error or "" for e in lost if not expected(e)}
    yield none_failed("errors that say what happened", len(lost), strange)


def missed(kills: int, during: int) -> list[str]:
    """The experiment is none if most kills met an idle server."""
    return [] if during > kills * 0.9 else [f"only {during} kills met a call"]


def struck(times: list[float], entry: Entry) -> float | None:
    """The first kill during the call."""
    index = bisect.bisect(times, entry.start)
    return times[index] if index < len(times) and times[index] < entry.end else None


def expected(entry: Entry) -> bool:
    """A change says that its outcome is unknown, a query doesn't."""
    if " is not running (" in entry.outcome:
        return True
    unknown = "outcome unknown" in entry.outcome
    return unknown == (entry.kind == "alloc") and any(
        words in entry.outcome
        for words in ("the plugin server ended during the call", "lost the plugin server: ")
    )


def kill_callers(farm: Farm, short: bool) -> Iterator[Figure]:
    """Signals during alloc_image: the work stops, and nothing of it stays."""
    total = 60 if short else 5000
    chance = random.Random(2)
    farm.start()
    for mode in ("run", "hang"):  # whatever is loaded at first use is no leak
        round_of_kills(farm, chance, mode, 4)
    farm.honest_call()
    settled = [*baseline(farm)]
    stops: list[float] = []
    entries: list[Entry] = []
    killed = 0
    batch = 0
    while killed < total:
        count = min(12, total - killed)
        seconds, found = round_of_kills(farm, chance, ("run", "hang")[batch % 2], count)
        stops.append(seconds)
        entries += found
        killed += count
        batch += 1
    yield within(f"work stopped after {killed} callers were killed", stops, 5.0, killed)
    left = list(farm.volumes.iterdir())
    yield none_failed("half-made volumes left", killed, map(str, left))
    farm.honest_call()
    until(lambda: [*baseline(farm)] == settled, 3)
    for name, before, after in zip(
        ("threads", "descriptors", "child processes"), settled, baseline(farm), strict=True
    ):
        more = [f"{before} → {after}"] if after > before else []
        yield none_failed(f"{name} as before", killed, more, None)
    cleanups = [entry for entry in entries if entry.kind == "cleanup"]
    failures = [entry.outcome for entry in cleanups if entry.error]
    worst = max((entry.seconds for entry in cleanups), default=0.0)
    yield none_failed("deactivate and free right after it", len(cleanups), failures, worst)


def baseline(farm: Farm) -> tuple[int, int, int]:
    """What must not grow."""
    return max(farm.proc("Threads"), IDLE_THREADS), farm.descriptors(), len(farm.children())


def round_of_kills(
    farm: Farm, chance: random.Random, mode: str, count: int
) -> tuple[float, list[Entry]]:
    """Kill that many callers at once; how long the server went on, what the callers said."""
    scfg = farm.scfg(f"alloc_image={mode}", dir=farm.volumes, delay=60, journal=farm.journal)
    callers: Callers = farm.callers(count, ["alloc"], scfg=scfg, each=1, count=1, cleanup=1)
    if chance.random() < 0.8:  # else also before their calls began
        until(lambda: len(list(farm.volumes.iterdir())) >= count, 5)
    time.sleep(chance.uniform(0, 0.03))
    for pid in list(callers.pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, chance.choice(SIGNALS))
    seconds = until(lambda: not callers.alive() and quiet(farm), 6)
    return seconds, callers.join(1)


def quiet(farm: Farm) -> bool:
    """Whether nothing is left of the work."""
    return not farm.children() and not list(farm.volumes.iterdir())
