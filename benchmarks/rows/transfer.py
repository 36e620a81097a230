# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Export into an import of one volume, through descriptors that PVE hands over.

The same plugin does the same copy without the bridge: its methods called in two processes, the
bytes through the same kind of pipe.  Source and target are in memory, so that no disk is measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from operator import truediv
from pathlib import Path

from pve_pybridge.host import Host
from pve_pybridge.loader import load
from pve_pybridge.storage import Call

from ..figures import Figure, Outcome, Series
from ..stage import PERL, ROOT, Stage

GIB = 1 << 30
PYDIR = ROOT / "python_plugins/pydir.py"
VOLUME, COPY = "100/vm-100-disk-0.raw", "101/vm-101-disk-0.raw"


def measure(stage: Stage) -> Iterator[Outcome]:
    """Rounds of four copies each, in turn; of a round the fastest copy counts.

    Where a virtual machine's host takes back what memory is free, one copy in four waits for it,
    and of 4 GiB at once every one did: they took 2.7 to 6.4 s, those that don't wait 0.5 for 1 GiB.
    """
    size, rounds, copies = (GIB // 4, 3, 1) if stage.short else (GIB, 7, 4)
    if _free_memory() < 3 * size:
        size = GIB // 4  # said in the figure's name
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        (Path(folder) / "images/100").mkdir(parents=True)
        block = os.urandom(1 << 20)  # no zeros: nothing may be skipped
        with (Path(folder) / "images" / VOLUME).open("wb") as file:
            for _ in range(size >> 20):
                file.write(block)
        stage.serve(PYDIR, "pydir")
        bridge = stage.perl(str(PERL / "transfer.pl"), folder, VOLUME, COPY)
        direct = [sys.executable, "-m", __name__, folder]
        taken: dict[str, list[float]] = {"bridge": [], "direct": []}
        for number in range((rounds + 1) * copies):
            order = [("bridge", bridge), ("direct", direct)]
            for who, command in order if number % 2 else order[::-1]:
                done = subprocess.run(command, env=stage.env, capture_output=True, check=True)
                taken[who].append(float(done.stdout))
                copy = Path(folder) / "images" / COPY
                if copy.stat().st_size != size:
                    raise RuntimeError(f"{who}: the copy is incomplete")
                copy.unlink()
    best = {
        who: [min(times[at : at + copies]) for at in range(copies, len(times), copies)]
        for who, times in taken.items()
    }
    speed = size / GIB / statistics.median(best["direct"])
    yield Figure(
        f"export and import of {copies} x {size / GIB:g} GiB",
        statistics.median(map(truediv, best["direct"], best["bridge"])),
        "x",
        f"without the bridge {speed:.2f} GiB/s",
        ">= 0.97",
    )
    yield Series(
        "transfer",
        "time of a copy in s",
        "share of copies",
        samples={who: times[copies:] for who, times in taken.items()},
    )


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def direct(folder: str) -> float:
    """The copy without a bridge: one process exports, this one imports."""
    host = Host(load(str(PYDIR)))
    scfg = {"type": "pydir", "path": folder, "content": {"images": 1}}
    args = {"format": "raw+size", "with_snapshots": 0}
    start = time.perf_counter()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        host.call(Call("volume_export", fd=writer), "local", scfg, {**args, "volname": VOLUME})
        os._exit(0)
    os.close(writer)
    host.call(Call("volume_import", fd=reader), "local", scfg, {**args, "volname": COPY})
    os.waitpid(child, 0)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(direct(sys.argv[1]))
