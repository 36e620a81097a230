# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The first call of a fresh process: load the calling half and msgpack, connect, hello, call."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence

from ..figures import Figure, Outcome, Series, excess, milli
from ..stage import PERL, Stage


def measure(stage: Stage) -> Iterator[Outcome]:
    """Inside a PVE process, and as a process of nothing else."""
    rounds = 15 if stage.short else 40
    contenders: dict[str, dict[str, object]] = {
        "bridge": {"who": "bridge"},
        "daemon's": {"who": "bridge", "daemon": 1},
        "modules": {"who": "modules"},
    }
    inside: dict[str, list[float]] = {name: [] for name in contenders}
    with stage.worker() as worker:  # a fork of it has PVE's modules, but none of the shim's own
        for _ in range(rounds):
            for name, job in contenders.items():
                answer = worker.do("first", what="small", **job)
                inside[name].append(answer["seconds"])
    yield Figure(
        "first call in a PVE process",
        1e3 * excess(inside["bridge"], inside["modules"]),
        "ms above",
        f"Data::MessagePack, Socket {milli(statistics.median(inside['modules']))}",
        "<= 3",
    )
    yield Figure(
        "first call in a task of a PVE daemon",
        1e3 * excess(inside["daemon's"], inside["modules"]),
        "ms above",
        "the same; what a daemon has loaded, its tasks have",
        "",
    )
    modules = ["-MData::MessagePack", "-MSocket"]
    alone = _processes(
        stage,
        rounds,
        [
            # without PVE, which the genuine modules' directory would load
            [word for word in stage.perl(str(PERL / "first.pl")) if not word.startswith("-MPVE")],
            ["perl", *modules, "-e1"],
            ["perl", *modules, "-MJSON", "-e1"],
        ],
    )
    ours, bare, with_json = alone
    yield Figure(
        "first call, whole process",
        1e3 * excess(ours, bare),
        "ms above",
        f"perl -MData::MessagePack -MSocket -e1 {milli(statistics.median(bare))}",
        "<= 3",
    )
    yield Figure(
        "first call, whole process, JSON known",
        1e3 * excess(ours, with_json),
        "ms above",
        f"the same with -MJSON, as all of PVE has it {milli(statistics.median(with_json))}",
        "",
    )
    yield Series(
        "first call",
        "time in ms",
        "share of processes",
        samples={
            "in a PVE process": [1e3 * one for one in inside["bridge"]],
            "in a task of a PVE daemon": [1e3 * one for one in inside["daemon's"]],
            "whole process": [1e3 * one for one in ours],
            "perl -MData::MessagePack -MSocket -e1": [1e3 * one for one in bare],
        },
    )


def _processes(stage: Stage, rounds: int, commands: Sequence[Sequence[str]]) -> list[list[float]]:
    """Wall times of whole processes, in turn."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(rounds + 1):  # the first round warms the page cache
        for command, times in zip(commands, taken, strict=True):
            start = time.perf_counter()
            subprocess.run(command, env=stage.env, check=True)
            times.append(time.perf_counter() - start)
    return [times[1:] for times in taken]
