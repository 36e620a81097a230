# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Who must not get in, and what must not get out."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bridge_util import GENUINE
from pve_pybridge import codec

from .farm import FAULTY, STOREID, Farm, until
from .figures import Figure, none_failed

NOBODY: Final = 65534


def refusals(farm: Farm, short: bool) -> Iterator[Figure]:
    """Users, owners and files that are not what they should be: refused, in one clear line."""
    if os.geteuid():
        yield none_failed("refusals (only root can try this)", 1, [])
        return
    tries = 5 if short else 100
    farm.start()
    farm.honest_call()
    yield from users(farm, tries)

    def figure(what: str, expected: str) -> Figure:
        return none_failed(what, tries, unlike(farm, tries, expected))

    os.chown(farm.path, NOBODY, NOBODY)
    yield figure("sockets of another owner", f"{farm.path} belongs to user {NOBODY}, not to root")
    os.chown(farm.path, 0, 0)
    away = farm.path.with_name("away.sock")
    farm.path.rename(away)
    yield figure("sockets that are not there", "plugin server for type 'faulty' is not running (")
    farm.path.symlink_to(away)
    yield figure("sockets behind a symlink", f"{farm.path} is no socket")
    farm.path.unlink()
    farm.path.write_text("")
    yield figure("files in place of the socket", f"{farm.path} is no socket")
    farm.path.unlink()
    with impostor(farm):
        yield figure("servers of another user", f"it runs as user {NOBODY}, not as root")
    away.rename(farm.path)
    yield none_failed("honest calls afterwards", tries, unlike(farm, tries, None))


def users(farm: Farm, tries: int) -> Iterator[Figure]:
    """Callers who are not root."""
    for path in (farm.node.base, farm.node.run):
        path.chmod(0o755)
    for mode, where, words in (
        (0o666, "on an open socket", f"user {NOBODY} (process "),
        (0o600, "on the socket as it is", "Permission denied"),
    ):
        farm.path.chmod(mode)
        said = [as_nobody(lambda: greeting(farm.path)) for _ in range(tries)]
        wrong = [line for line in said if words not in line]
        yield none_failed(f"callers without rights, {where}", tries, wrong)
    farm.node.run.chmod(0o700)


@contextlib.contextmanager
def impostor(farm: Farm) -> Iterator[None]:
    """A server without rights, at a socket that looks right."""
    farm.node.run.chmod(0o777)
    pid = os.fork()
    if not pid:
        try:
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(farm.path))
                listener.listen(100)
                time.sleep(3600)
        finally:
            os._exit(0)
    until(farm.path.exists, 10)
    time.sleep(0.1)
    os.chown(farm.path, 0, 0)
    yield
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    farm.path.unlink()
    farm.node.run.chmod(0o700)


def unlike(farm: Farm, tries: int, expected: str | None) -> list[str]:
    """Outcomes of calls that don't say this; None: that fail."""
    entries = farm.callers(1, ["attribute"], each=1, count=tries).join(60)
    lines = [entry.outcome for entry in entries]
    if expected is None:
        return [line for line in lines if line != "ok"]
    begin = f"error: storage '{STOREID}': "
    return [line for line in lines if not line.startswith(begin) or expected not in line]


def as_nobody(action: Callable[[], str]) -> str:
    """What the action says in a process without rights."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setuid(NOBODY)
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    return said


def greeting(path: Path) -> str:
    """How a connection of ours begins."""
    hello = codec.encode("hello", {"wire": 1, "type": "faulty"})
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(hello)  # the answer is there, even if nobody wants to read this
            return sock.recv(1000).decode("utf-8", "replace")
        except OSError as err:
            return err.strerror or "?"


# --- secrets -----------------------------------------------------------------------------------

PERL: Final = """
    my ($class, $what, $scfg, $token, $password) = @ARGS;
    my @secrets = ('faulty-token' => $token, password => $password);
    return "PVE::Storage::Custom::PyBridge::$class"->on_add_hook('s1', $scfg, @secrets)
        if $what eq 'add';
    return "PVE::Storage::Custom::PyBridge::$class"->on_update_hook_full(
        's1', $scfg, {}, [], {@secrets}) if $what eq 'update';
    return "PVE::Storage::Custom::PyBridge::$class"->on_delete_hook('s1', $scfg)
        if $what eq 'delete';
    return "PVE::Storage::Custom::PyBridge::$class"->activate_volume('s1', $scfg, 'vm-1-a');
"""
API: Final = """
    require PVE::API2::Storage::Config;
    my ($what, $token, $password) = @ARGS;
    my %given = (storage => 'a1', 'faulty-token' => $token, password => $password);
    return PVE::API2::Storage::Config->create({ %given, type => 'faulty' }) if $what eq 'add';
    return PVE::API2::Storage::Config->update({%given}) if $what eq 'update';
    return PVE::API2::Storage::Config->delete({ storage => 'a1' });
"""
SCENES: Final = (
    *("add", "update", "leak", "add=leak", "update=leak", "delete=leak", "bug", "delete"),
    *("add=crash", "update=crash", "crash"),
)


def leaks(farm: Farm, short: bool) -> Iterator[Figure]:
    """Secrets through every hook, error and crash, with a trace and a debug log: nowhere seen."""
    rounds = 1 if short else 8
    farm.listener.close()
    farm.path.unlink()
    markers: list[str] = []
    seen: list[str] = []
    for number in range(rounds):
        token, password = (f"secret-{secrets.token_hex(12)}" for _ in range(2))
        markers += [token, password]
        for scene in SCENES:
            seen += play(farm, scene, token, password, api=not GENUINE and number % 2 == 0)
    scenes = rounds * len(SCENES)
    yield none_failed("secrets in core's errors, warnings, output", scenes, seen)
    found = [str(path) for path in files(farm) if any(holds(path, word) for word in markers)]
    yield none_failed("secrets in logs, traces, storage.cfg, anything", len(files(farm)), found)
    kept = list((farm.node.etc / "priv" / "storage").glob("s1.*"))
    yield none_failed("secrets left after the storage", scenes, map(str, kept))


def play(farm: Farm, scene: str, token: str, password: str, *, api: bool) -> list[str]:
    """One scene; everything that a caller or a bystander saw with a secret in it."""
    what, _, fault = scene.rpartition("=")
    what = what or (fault if fault in ("add", "update", "delete") else "activate")
    fault = "" if fault == what else fault
    server = current(farm)
    scfg = farm.scfg(fault)
    answer = farm.node.perl(PERL, "faulty", what, scfg, token, password)
    shown = [str(answer.error), answer.stdout, answer.stderr, repr(answer.value)]
    if api and what in ("add", "update", "delete") and not fault:
        result = farm.node.perl(API, what, token, password)
        shown += [str(result.error), result.stdout, result.stderr, repr(result.value)]
    shown += [f"{path}: {words}" for path, words in command_lines()]
    if fault == "crash":
        server.wait(10)
        current(farm)
        farm.node.perl(PERL, "faulty", "delete", farm.scfg(), token, password).ok()
    elif what == "update":
        shown.append(farm.node.cli("stats", "--json").stdout)
    return [line[:200] for line in shown if token in line or password in line]


def current(farm: Farm) -> subprocess.Popen[bytes]:
    """A real server with a trace and all there is in logging."""
    if farm.process is None or farm.process.poll() is not None:
        command = [sys.executable, "-m", "pve_pybridge", "--log-level", "debug", "serve"]
        command += [str(FAULTY), "--trace", str(farm.node.base / "trace")]
        with farm.log.open("ab") as log:
            before = log.tell()
            farm.process = subprocess.Popen(command, stderr=log)
        until(lambda: b"listening on" in farm.log.read_bytes()[before:], 20)
    return farm.process


def command_lines() -> Iterator[tuple[str, str]]:
    """Arguments and environments of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        for file in (path, path.with_name("environ")):
            try:
                yield str(file), file.read_text(errors="replace")
            except OSError:
                continue


def files(farm: Farm) -> list[Path]:
    """Everything on the node, but the place where secrets belong."""
    private = farm.node.etc / "priv"
    return [
        path for path in farm.node.base.rglob("*") if path.is_file() and private not in path.parents
    ]


def holds(path: Path, word: str) -> bool:
    """Whether a file has it, in any of the usual disguises."""
    data = path.read_bytes()
    return word.encode() in data or word.encode().hex().encode() in data
