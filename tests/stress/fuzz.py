# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Broken frames at both ends of the wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from faults_util import IDLE_THREADS
from pve_pybridge import codec
from pve_pybridge.errors import ProtocolError
from pve_pybridge.testing import perl

from .farm import Farm, until
from .figures import Figure, at_most, none_failed, within
from .mutate import Mutator, framed, golden, pack

FUZZ: Final = Path(__file__).resolve().parent / "fuzz.pl"
MEMORY_MIB: Final = 64
BATCH: Final = 32
HELLO: Final[list[Any]] = ["hello", {"wire": 1, "type": "faulty", "pid": 1, "hints": ["x"]}]


def fuzz_server(farm: Farm, short: bool) -> Iterator[Figure]:
    """A server that lives through broken frames and serves the next honest caller."""
    total = 5000 if short else 1_000_000
    farm.start()
    corpus = golden(frozenset({"hello", "call", "cancel"})) + 3 * recorded(farm)
    mutator = Mutator(corpus, 3)
    for _ in range(200):
        provoke(farm, mutator)
    before = farm.proc("VmRSS")
    peak, sent, dead = before, 0, list[str]()
    honest = [farm.honest_call()]
    while sent < total and not dead:
        sent += provoke(farm, mutator)
        if sent % 1000 < BATCH:
            peak = max(peak, farm.proc("VmRSS"))
            honest.append(farm.honest_call())
        if os.waitid(os.P_PID, farm.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            dead = [f"the server died after {sent} frames"]
    yield none_failed("broken frames to a server", sent, dead)
    yield at_most("server's growth", sent, (peak - before) / 1024, MEMORY_MIB, "MiB")
    yield within("honest calls in between", honest, 2)
    until(lambda: farm.proc("Threads") <= IDLE_THREADS, 10)
    yield at_most("threads afterwards", 1, farm.proc("Threads"), IDLE_THREADS, "threads")
    bugs = [line for line in farm.log.read_text().splitlines() if "connection of" in line]
    yield none_failed("connections that ended in a bug", sent, bugs)


def recorded(farm: Farm) -> list[list[Any]]:
    """Calls as a caller would make them."""
    scfg = farm.scfg()
    volume = {"volname": "vm-1-a"}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("path", {**volume, "snapname": None}),
        ("status", {}),
        ("list_images", {"vmid": 100, "vollist": ["s1:vm-1-a"]}),
        ("get_volume_attribute", {**volume, "attribute": "notes"}),
        ("alloc_image", {"vmid": 1, "format": "raw", "name": "n", "size": 1024}),
        ("free_image", {**volume, "is_base": 0, "format": "raw"}),
        ("activate_volume", {**volume, "snapname": None, "hints": {"guest-is-windows": 1}}),
        ("on_update_hook_full", {"update": {}, "delete": ["x"], "sensitive": {}}),
        ("volume_snapshot", {**volume, "snapname": "s"}),
        ("no_such_method", {}),
    ]
    meta = {"operation": "1-2", "remaining": 5.5}
    return [
        ["call", number, method, "s1", scfg, args, meta]
        for number, (method, args) in enumerate(calls)
    ]


def provoke(farm: Farm, mutator: Mutator) -> int:
    """Broken frames over one connection, until it ends; how many of them the server has read."""
    frames = [mutator.frame()]
    greeting = b"" if frames[0][6:11] == b"hello" else framed(pack(HELLO))
    while len(frames) < BATCH and goes_on(frames[-1]):
        frames.append(mutator.frame())
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(farm.path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(greeting + b"".join(frames))
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(1 << 20):
                answer += chunk
    silent = sum(frame[6:12] == b"cancel" for frame in frames)
    return min(len(frames), max(1, answers(answer) + silent))


def goes_on(frame: bytes) -> bool:
    """Whether the connection lives on after this one, as far as can be told from here."""
    try:
        if codec.decode_length(frame[:4]) != len(frame) - 4:
            return False
        message = codec.decode(frame[4:])
    except (ProtocolError, struct.error):
        return False
    meta = codec.named(message).get("meta") or {}
    return message[0] in ("call", "cancel") and not (isinstance(meta, dict) and meta.get("fd"))


def answers(data: bytes) -> int:
    """Calls answered and the refusal that ended it, not the welcome."""
    found = 0
    while len(data) >= codec.HEADER.size:
        size = codec.decode_length(data[:4])
        found += codec.decode(data[4 : 4 + size])[0] in ("result", "error")
        data = data[4 + size :]
    return found


def fuzz_caller(farm: Farm, short: bool) -> Iterator[Figure]:
    """A PVE process that lives through broken answers."""
    total = 5000 if short else 1_000_000
    farm.pid = os.fork()
    if not farm.pid:
        try:
            serve_nonsense(farm.listener)
        finally:
            os._exit(1)
    command = [*perl._command((), True)[:-1], str(FUZZ), str(total)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    farm.kill(signal.SIGKILL)
    if done.returncode:
        yield none_failed("broken frames to a caller", total, [f"exit status {done.returncode}"])
        return
    found = json.loads(done.stdout)
    yield none_failed(
        "broken frames to a caller",
        found["answered"] + found["died"],
        [text for text in found["examples"] if text] or ["?"] * found["odd"],
    )
    yield at_most("caller's growth", total, found["grown"] / 1024, MEMORY_MIB, "MiB")
    yield at_most("caller's peak", total, found["peak"] / 1024, 2 * MEMORY_MIB, "MiB")
    farm.start()
    entries = farm.callers(1, ["attribute", "status", "alloc"], count=30).join(20)
    failed = [entry.outcome for entry in entries if entry.error]
    yield none_failed("honest calls afterwards", 30, failed)


def serve_nonsense(listener: socket.socket) -> None:
    """Answer each connection with a proper welcome, most times, and one broken frame."""
    kinds = frozenset({"welcome", "part", "result", "error", "log", "alive"})
    corpus = golden(kinds)
    for message in list(corpus):  # of the calls that are made: always the first
        if message[0] != "welcome":
            corpus.append([message[0], 1, *message[2:]])
    mutator = Mutator(corpus, 4)
    greeting = framed(pack(["welcome", {"wire": 1, "table": 1, "type": "faulty", "pid": 1}]))
    number = 0
    while True:
        peer, _ = listener.accept()
        number += 1
        with peer, contextlib.suppress(OSError):
            peer.recv(1 << 16)  # hello and call come together
            peer.sendall((greeting if number % 20 else b"") + mutator.frame())
