# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Which running PVE processes have an older shim or manifest: real processes, real reloads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from bridge_util import GENUINE, Node
from doctor_util import Patient
from probe_util import wait_until
from pve_pybridge.testing.perl import perl_options

SECONDS = 2.0
"""More than the doctor's slack."""


def _may_unshare() -> bool:
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(not _may_unshare(), reason="needs a mount namespace of its own")


class Daemon:
    """A PVE daemon in a mount namespace of its own: no other test's doctor sees it."""

    def __init__(self, patient: Patient, name: str, workers: int, inside: Daemon | None = None):
        self.name = name
        script = Path(__file__).with_name("daemon.pl")
        enter = inside.enter() if inside else ["unshare", "--mount"]
        self.process = subprocess.Popen(
            [*enter, "perl", "-T", *perl_options(), str(script), name, str(workers)],
            env={**os.environ, **patient.node.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.workers = self.ready()

    @property
    def pid(self) -> int:
        return self.process.pid

    def enter(self) -> list[str]:
        """Command prefix that runs something among the same files as the daemon."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--"]

    def ready(self) -> list[int]:
        stdout: IO[bytes] | None = self.process.stdout
        assert stdout is not None
        line = stdout.readline().split()
        assert line[:1] == [b"ready"]
        return [int(pid) for pid in line[1:]]

    def reload(self) -> None:
        """It goes on as the same process, with the code of now and new workers."""
        os.kill(self.pid, signal.SIGHUP)
        self.workers = self.ready()

    def end(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


Start = Callable[..., Daemon]


@pytest.fixture
def patient(node: Node) -> Patient:
    return Patient(node)


@pytest.fixture
def start(patient: Patient) -> Iterator[Start]:
    running: list[Daemon] = []

    def start_one(name: str, workers: int = 0, inside: Daemon | None = None) -> Daemon:
        running.append(Daemon(patient, name, workers, inside))
        patient.prefix = running[0].enter()
        return running[-1]

    yield start_one
    for daemon in running:
        daemon.end()


def change(patient: Patient) -> None:
    """A new manifest, some time after what runs has started."""
    time.sleep(SECONDS)
    text = patient.plugin.read_text()
    patient.plugin.write_text(text.replace("Where the volumes", f"{time.time()}: the volumes"))
    patient.node.cli("enable", str(patient.plugin))
    time.sleep(SECONDS)


def old(patient: Patient) -> dict[int, str]:
    """Process → what is said of it."""
    return {
        int(re.findall(r"process (\d+) ", where)[0]): what
        for _, _, where, what in patient.findings("processes")
    }


def test_daemon_that_was_not_reloaded(patient: Patient, start: Start) -> None:
    daemon = start("pvedaemon", workers=2)
    proxy = start("pveproxy", workers=1, inside=daemon)
    assert old(patient) == {}
    summary = patient.examine("processes")["checks"][0]["summary"]
    assert summary == "PVE processes: 5"
    change(patient)
    found = patient.examine("processes")["checks"][0]["findings"]
    assert {one["where"].partition(" (")[2] for one in found} == {
        "pvedaemon)",
        "pvedaemon worker)",
        "pveproxy)",
        "pveproxy worker)",
    }
    assert len(found) == 5
    assert f"(newest: {patient.manifest})" in found[0]["what"]
    assert "systemctl reload-or-try-restart pvedaemon" in [one["mend"] for one in found]

    first = daemon.workers
    daemon.reload()
    proxy.reload()
    # The masters are the same processes; only their workers' own words date the reload.
    for pid in (*daemon.workers, *proxy.workers):
        os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: len(patient.server.calls("status")) >= 3)
    told = old(patient)
    assert {*told} >= {*first}, "workers that go on with the old code"
    assert {*told} & {daemon.pid, proxy.pid, *daemon.workers, *proxy.workers} == set()


def test_daemon_without_workers_in_its_own_words(patient: Patient, start: Start) -> None:
    daemon = start("pvestatd")
    change(patient)
    assert "whether it reloaded since can't be told" in old(patient)[daemon.pid]
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_until(lambda: len(patient.server.calls("status")) >= 1)
    assert old(patient)[daemon.pid].startswith("it does not have what is there since ")
    daemon.reload()
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_until(lambda: len(patient.server.calls("status")) >= 2)
    wait_until(lambda: old(patient) == {})


def test_started_since(patient: Patient, start: Start) -> None:
    change(patient)
    start("pvescheduler")
    assert old(patient) == {}


def test_same_text_written_again(patient: Patient, start: Start) -> None:
    """An upgrade that brings the same shim and manifest makes nobody old."""
    patient.node.cli("enable", str(patient.plugin))
    start("pvestatd", workers=1)
    time.sleep(SECONDS)
    patient.manifest.write_bytes(patient.manifest.read_bytes())
    time.sleep(SECONDS)
    assert old(patient) == {}
    patient.manifest.write_bytes(patient.manifest.read_bytes() + b" ")
    time.sleep(SECONDS)
    assert len(old(patient)) == 2


def test_systemd_knows_the_last_reload(patient: Patient, start: Start) -> None:
    daemon = start("pvescheduler")
    change(patient)
    (patient.node.base / "systemd").mkdir()
    systemctl = patient.node.base / "bin" / "systemctl"
    systemctl.parent.mkdir()
    told = patient.node.base / "told"
    systemctl.write_text(f'#!/bin/sh\ncase "$*" in *pvescheduler*) cat {told} ;; esac\n')
    systemctl.chmod(0o755)
    patient.node.env["PATH"] = f"{systemctl.parent}:{os.environ['PATH']}"
    line = (
        "MainPID={pid}\nExecReload={{ path=/usr/bin/pvescheduler ; start_time=[{at}] ; pid=1 }}\n"
    )
    now = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime())
    before = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() - 3600))
    told.write_text(line.format(pid=daemon.pid, at="n/a"))
    assert old(patient)[daemon.pid].startswith("it does not have")
    told.write_text(line.format(pid=daemon.pid, at=before))
    assert old(patient)[daemon.pid].startswith("it does not have")
    told.write_text(line.format(pid=daemon.pid, at=now))
    assert old(patient) == {}
    told.write_text(line.format(pid=1, at=now))
    assert "can't be told" in old(patient)[daemon.pid]


def test_a_task_that_goes_on(patient: Patient, start: Start) -> None:
    start("task UPID:node:0001:0002:0003:qmclone:100:root@pam:")
    change(patient)
    (finding,) = patient.examine("processes")["checks"][0]["findings"]
    assert finding["mend"] == "nothing to do: it will end by itself"


def test_pvestatd_that_has_stopped_asking(patient: Patient, start: Start) -> None:
    daemon = start("pvestatd")
    ((_, level, where, what),) = patient.findings("status")
    assert (level, where) == ("warning", "storage 'v1'")
    assert what == "PVE has figures from: not yet; pvestatd asked: not yet"
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_until(lambda: len(patient.server.calls("status")) >= 2)
    wait_until(lambda: patient.findings("status") == [])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not GENUINE, reason="the stand-in has no PVE::Daemon")
def test_pves_own_daemon(patient: Patient, tmp_path: Path) -> None:
    """What every service of PVE is made of: its master and workers before and after its reload."""
    pidfile = tmp_path / "pvedaemon.pid"
    script = tmp_path / "pvedaemon"  # the shim knows PVE's daemons by their programs
    script.symlink_to(Path(__file__).with_name("pve_daemon.pl"))
    command = ["unshare", "--mount", "perl", "-T", *perl_options(), str(script)]
    subprocess.run(
        [*command, "pvedaemon", str(pidfile)],
        env={**os.environ, **patient.node.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wait_until(lambda: pidfile.exists() and pidfile.read_text() != "")
    pid = int(pidfile.read_text())
    patient.prefix = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--"]
    try:
        wait_until(lambda: len(children(pid)) == 2)
        first = children(pid)
        assert old(patient) == {}
        change(patient)
        assert {*old(patient)} == {pid, *first}
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: len({*children(pid)} - {*first}) == 2, 30)
        new = {*children(pid)} - {*first}
        time.sleep(1)  # until they handle signals
        for worker in new:
            os.kill(worker, signal.SIGUSR1)
        wait_until(lambda: len(patient.server.calls("status")) >= 1)
        wait_until(lambda: {*old(patient)} <= {*first}, 30)
    finally:
        os.killpg(pid, signal.SIGKILL)
