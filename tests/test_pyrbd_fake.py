# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The cluster of tests/fakes tells the truth: the same commands on a real one (tools/ceph-test)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pve_pybridge.ceph.cluster import reason
from pve_pybridge.process import Completed
from rbd_util import REAL_CONF, RbdNode, RealNode

pytestmark = pytest.mark.skipif(not REAL_CONF, reason="no real cluster: see tools/ceph-test")

FAKES = Path(__file__).parent / "fakes"
JSON = "--format json"
# One cluster's life; POOL stands for the test's own namespace.
COMMANDS = f"""
    ls -l POOL {JSON}
    create --image-format 2 --size 8 POOL/vm-1-disk-0
    create --image-format 2 --size 8 POOL/vm-1-disk-0
    create --image-format 2 --size 8 nopool/vm-1-disk-0
    info POOL/vm-1-disk-0 {JSON}
    info POOL/nosuch {JSON}
    ls -l nopool {JSON}
    ls -l rbd/nosuch {JSON}
    status POOL/vm-1-disk-0 {JSON}
    status POOL/nosuch {JSON}
    config image set POOL/vm-1-disk-0 rbd_cache_policy writeback
    config image set POOL/nosuch rbd_cache_policy writeback
    snap ls POOL/vm-1-disk-0 {JSON}
    snap ls POOL/nosuch {JSON}
    snap create POOL/vm-1-disk-0@one
    snap create POOL/vm-1-disk-0@one
    snap create POOL/nosuch@one
    snap ls POOL/vm-1-disk-0 {JSON}
    info POOL/vm-1-disk-0@one {JSON}
    info POOL/vm-1-disk-0@two {JSON}
    clone POOL/vm-1-disk-0@one POOL/vm-2-disk-0
    snap protect POOL/vm-1-disk-0@one
    snap protect POOL/vm-1-disk-0@one
    snap protect POOL/vm-1-disk-0@two
    clone POOL/vm-1-disk-0@one POOL/vm-2-disk-0
    clone POOL/vm-1-disk-0@one POOL/vm-2-disk-0
    ls -l POOL {JSON}
    info POOL/vm-2-disk-0 {JSON}
    snap rm POOL/vm-1-disk-0@one
    snap unprotect POOL/vm-1-disk-0@one
    rm POOL/vm-1-disk-0
    rename POOL/vm-2-disk-0 POOL/vm-1-disk-0
    rename POOL/nosuch POOL/vm-3-disk-0
    rename POOL/vm-2-disk-0 POOL/vm-3-disk-0
    resize --size 16 POOL/vm-3-disk-0
    resize --size 4 POOL/vm-3-disk-0
    resize --size 4 POOL/nosuch
    rm POOL/vm-3-disk-0
    rm POOL/vm-3-disk-0
    snap rollback POOL/vm-1-disk-0@two
    snap rollback POOL/vm-1-disk-0@one
    snap unprotect POOL/vm-1-disk-0@one
    snap unprotect POOL/vm-1-disk-0@one
    snap rm POOL/vm-1-disk-0@one
    snap rm POOL/vm-1-disk-0@one
    import --export-format 1 - POOL/vm-1-disk-0
    import --export-format 1 - POOL/vm-4-disk-0
    info POOL/vm-4-disk-0 {JSON}
    export --export-format 1 POOL/vm-4-disk-0 -
    export --export-format 1 POOL/nosuch -
    unmap /dev/rbd77
    rm POOL/vm-1-disk-0
"""
VARY = {"id", "snapshot_id", "timestamp"}


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[RbdNode, RealNode]]:
    for name in ("fake", "real"):
        (tmp_path / name).mkdir()
    with RealNode(tmp_path / "real") as real, RbdNode(tmp_path / "fake", real.namespace) as fake:
        yield fake, real


def run(command: list[str], env: Mapping[str, str]) -> Completed:
    done = subprocess.run(
        command, env={**os.environ, **env}, input=b"x" * 4096, capture_output=True, check=False
    )
    return Completed(command, done.returncode, done.stdout, done.stderr)


def test_same_answers(both: tuple[RbdNode, RealNode]) -> None:
    """Exit codes, what ``reason`` makes of STDERR, and every value the fake shows as JSON."""
    fake, real = both
    differ = []
    for line in filter(None, map(str.strip, COMMANDS.splitlines())):
        words = line.replace("POOL", real.pool).split()
        theirs = run(["rbd", "-c", str(REAL_CONF), *words], {})
        ours = run([f"{FAKES}/rbd", "-n", "client.admin", *words], fake.env)
        told = [
            (done.status, _words(reason(done)) if done.status else []) for done in (theirs, ours)
        ]
        if told[0] != told[1]:
            differ.append(f"{line}:\n  real {theirs.stderr!r}\n  fake {ours.stderr!r}")
        elif JSON in line and not theirs.status:
            answers = [json.loads(done.stdout) for done in (theirs, ours)]
            if not _contains(*answers):
                differ.append(f"{line}: real {answers[0]}, fake {answers[1]}")
        elif words[0] == "export" and theirs.stdout != ours.stdout:
            differ.append(f"{line}: other data")
    assert not differ, "\n".join(differ)


def _words(text: str) -> list[str]:
    """librbd's thread and the command itself write at the same time: in any order, and no IDs."""
    head, bracket, rest = text.partition("child(ren) [")
    text = head + bracket + rest.partition("]")[2] if bracket else text
    return sorted(re.findall(r"\w+", text))


def _contains(real: Any, fake: Any) -> bool:
    """Whether the real answer has everything the fake one has."""
    if isinstance(fake, dict):
        return all(
            key in real and (key in VARY or _contains(real[key], value))
            for key, value in fake.items()
        )
    if isinstance(fake, list):
        return len(real) == len(fake) and all(map(_contains, real, fake))
    return bool(real == fake)
