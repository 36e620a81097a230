# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backends that hang, crash, flood or talk nonsense: what callers get, and what stays whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_util import Node
from faults_util import IDLE_THREADS, TOTAL, USED, Faults, Outcome
from pve_pybridge import inflight

FIGURES = [TOTAL, TOTAL - USED, USED, 1]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """A plugin server for the tests after which it is whole again."""
    with Node(tmp_path_factory.mktemp("faults")) as node:
        yield Faults(node)


@pytest.fixture
def own(node: Node) -> Faults:
    """A plugin server that may be lost."""
    return Faults(node)


# --- hanging backends --------------------------------------------------------------------------


HANGS = ("hang", "hang-python", "hang-c")


@pytest.fixture(scope="module")
def hung(faults: Faults) -> dict[tuple[str, str], Outcome]:
    """What happens while backends hang, all at the same time: (method, storage) → outcome."""
    scfgs = {fault: faults.scfg(fault, gate=faults.gate) for fault in HANGS}
    for fault in HANGS:
        faults.call("status", f"known-{fault}", scfgs[fault], {}, context="list").ok()
    calls: list[tuple[str, str, tuple[Any, ...]]] = [
        ("check_connection", "stuck", ("stuck", scfgs["hang-c"])),
        ("activate_storage", "stuck", ("stuck", scfgs["hang-c"], {})),
        ("status", "healthy", ("healthy", faults.scfg(), {})),
    ]
    for fault in HANGS:
        for storeid in (f"known-{fault}", f"unknown-{fault}"):
            calls.append(("status", storeid, (storeid, scfgs[fault], {})))
    with faults.shut_gate():
        outcomes = faults.together([(method, args) for method, _, args in calls])
    return {
        (method, storeid): outcome
        for (method, storeid, _), outcome in zip(calls, outcomes, strict=True)
    }


@pytest.mark.contract("C-037")
@pytest.mark.parametrize("fault", HANGS)
def test_hung_status(faults: Faults, hung: dict[tuple[str, str], Outcome], fault: str) -> None:
    """Within 3.5 s: the last known figures, inactive when there are none; then as before."""
    for storeid, figures in ((f"known-{fault}", FIGURES), (f"unknown-{fault}", [])):
        answer, seconds = hung["status", storeid]
        assert (answer.ok(), answer.stderr) == (figures, "")
        assert 2.9 < seconds < 3.5
    scfg = faults.scfg(fault, gate=faults.gate)
    answer = faults.call("status", f"unknown-{fault}", scfg, {}, context="list")
    assert answer.ok() == FIGURES


def test_other_storages_of_the_type_go_on(hung: dict[tuple[str, str], Outcome]) -> None:
    answer, seconds = hung["status", "healthy"]
    assert answer.ok() == FIGURES
    assert seconds < 0.5


@pytest.mark.contract("C-036")
@pytest.mark.parametrize(("method", "limit"), [("check_connection", 3), ("activate_storage", 10)])
def test_hung_checks(hung: dict[tuple[str, str], Outcome], method: str, limit: int) -> None:
    answer, seconds = hung[method, "stuck"]
    assert answer.error == f"storage 'stuck': {method} got timeout after {limit} s\n"
    assert limit - 0.1 < seconds < limit + 0.5


def test_figures_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last known ones stand in for at most a minute."""
    now = 1000.0
    monkeypatch.setattr("pve_pybridge.inflight.time.monotonic", lambda: now)
    shared = inflight.Inflight()
    shared.remember("s", FIGURES)
    now += 59.9
    assert shared.last_known("s") == FIGURES
    now += 0.2
    assert shared.last_known("s") is None


def test_concurrent_status_calls_share_one_run(faults: Faults) -> None:
    scfg = faults.scfg("status=sleep", delay=0.5)
    faults.journal.unlink(missing_ok=True)
    answers = faults.at_once(8, "status", "shared", scfg, {})
    assert [answer.ok() for answer in answers] == [FIGURES] * 8
    assert len(faults.journalled("status-shared")) < 8


def test_hung_status_collects_no_threads(own: Faults) -> None:
    """However many ask, and however often: one thread of the plugin is stuck."""
    scfg = own.scfg("status=hang-c", gate=own.gate)
    started = time.monotonic()
    with own.shut_gate():
        for _ in range(2):
            answers = own.at_once(6, "status", "stuck", scfg, {})
            assert [answer.ok() for answer in answers] == [[]] * 6
        attempts = 1 + int((time.monotonic() - started) / inflight.STUCK_SECONDS)
        own.wait_for(lambda: own.threads() <= IDLE_THREADS + attempts)
    own.wait_for(lambda: own.threads() <= IDLE_THREADS)


@pytest.mark.contract("C-037")
def test_stuck_interpreter(own: Faults) -> None:
    """Nothing in the server can answer then; the caller itself gives up, in one line."""
    scfg = own.scfg("status=hang-gil", gate=own.gate)
    own.call("path", scfg, "vm-1-a", "s").ok()
    with own.shut_gate():
        started = time.monotonic()
        answer = own.call("status", "stuck", scfg, {}, context="list")
        assert time.monotonic() - started < 3.5
        assert answer.error == "storage 'stuck': status: got timeout after 3.3 s\n"
    assert own.call("status", "stuck", scfg, {}, context="list").ok() == FIGURES


def test_caller_in_a_hurry_speaks_for_itself_only(own: Faults) -> None:
    """Who has little time gets its answer then; who shares the run waits for the real one."""
    scfg = own.scfg("list_images=hang", delay=1.5)
    with Faults.raw_clients(own.node, "faulty", 2) as (hasty, patient):
        hasty.send("call", 1, "list_images", "s", scfg, {}, {"remaining": 0.5})
        time.sleep(0.2)
        patient.send("call", 1, "list_images", "s", scfg, {}, {})
        kind, fields = hasty.answer()
        assert (kind, fields["error"]["kind"]) == ("error", "timeout")
        assert patient.answer()[0] == "result"


# --- the end of the server ---------------------------------------------------------------------


@pytest.mark.contract("C-025")
@pytest.mark.parametrize("fault", ["crash", "exit"])
def test_server_dies_during_a_call(own: Faults, fault: str) -> None:
    """A query is asked once more, a change never: whether it happened is unknown."""
    ended = "the plugin server ended during the call"
    down = f"plugin server for type 'faulty' is not running ({own.server.socket}: "
    own.call("path", own.scfg(), "vm-1-a", "s").ok()
    answer = own.alloc("s", own.scfg(fault, journal=own.journal), "tag")
    assert answer.error == f"storage 's': alloc_image: {ended}, outcome unknown\n"
    assert len(own.journalled("tag")) == 1
    own.server.process.wait(10)
    answer = own.call("path", own.scfg(), "vm-1-a", "s")
    assert answer.error == f"storage 's': {down}Connection refused)\n"

    own.restart()
    assert own.call("path", own.scfg(), "vm-1-a", "s").ok() == "/dev/vm-1-a"
    answer = own.call("path", own.scfg(fault), "vm-1-a", "s")
    lost = "lost the plugin server: "
    ends = (ended, f"{lost}Connection reset by peer", f"{lost}Broken pipe")
    gone = [f"storage 's': path: {end}\n" for end in ends]
    assert answer.error in (f"storage 's': {down}Connection refused)\n", *gone)
    own.restart()
    assert own.call("path", own.scfg(), "vm-1-a", "s").ok() == "/dev/vm-1-a"


# --- too much, too slow, nonsense --------------------------------------------------------------


def test_wrong_types_and_huge_answers(faults: Faults) -> None:
    answer = faults.call("path", faults.scfg("wrong"), "vm-1-a", "s")
    assert (answer.error or "").startswith(
        "plugin 'faulty', path: its answer must be str, not object; PVE would give QEMU a path "
        "that doesn't exist; return the path, device or URI as str (call "
    )
    answer = faults.call("path", faults.scfg("huge", amount=64), "vm-1-a", "s")
    assert "exceeds the limit of 67108864" in (answer.error or "")
    answer = faults.call("path", faults.scfg("huge", amount=4), "vm-1-a", "s")
    assert answer.ok() == "x" * (4 << 20)
    answer = faults.call("path", faults.scfg("bug"), "vm-1-a", "s")
    assert "KeyError: 'boom' (call " in (answer.error or "")
    assert (answer.error or "").count("\n") == 1


@pytest.mark.contract("C-028")
def test_noise_and_trickle_and_flood(faults: Faults) -> None:
    answer = faults.call("path", faults.scfg("noise"), "vm-1-a", "s")
    assert (answer.ok(), answer.stdout, answer.stderr) == ("/dev/vm-1-a", "", "")
    log = faults.server.log.read_text()
    assert "noise from print" in log
    assert "noise from a child" in log
    started = time.monotonic()
    answer = faults.call("path", faults.scfg("trickle", delay=1), "vm-1-a", "s")
    assert answer.ok() == "/dev/vm-1-a"
    assert 0.9 < time.monotonic() - started < 3
    before = faults.memory()
    answer = faults.call("path", faults.scfg("flood", amount=100), "vm-1-a", "s")
    assert answer.ok() == "/dev/vm-1-a"
    assert len(answer.stderr) == 100 << 20
    assert faults.memory() - before < 32


def test_memory_comes_back(faults: Faults) -> None:
    before = faults.memory()
    faults.call("path", faults.scfg("grow", amount=200), "vm-1-a", "s").ok()
    assert faults.memory() - before < 32


def test_broken_counts_cost_no_memory(faults: Faults) -> None:
    """Data::MessagePack by itself makes room for what a header claims: gigabytes."""
    code = """
        require PVE::Storage::PyBridge::Codec;
        my ($hex) = $ARGS[0] =~ /(.*)/;
        my $payload = pack('H*', $hex);
        my $buffer = pack('N', length($payload)) . $payload;
        my ($message) = eval { PVE::Storage::PyBridge::Codec::decode(\\$buffer) };
        return ref($@) ? $@->{message} : scalar(@$message);
    """
    for broken in ("91dd0fffffff01", "92a178dd7fffffff01", "91df0fffffff01"):
        assert faults.node.perl(code, broken).ok() == "answer is no msgpack array"
    looks_like_counts = {  # inside of strings: no messages, but complete
        "92a6726573756c74da00066162ddffffff": "malformed 'result'",
        "9201c405ddffffffff": "unknown kind of message",
    }
    for sound, flaw in looks_like_counts.items():
        assert faults.node.perl(code, sound).ok() == f"{flaw} from the plugin server"
    peak = "open(my $fh, '<', '/proc/self/status'); return [grep { /VmHWM/ } <$fh>]->[0];"
    assert int(faults.node.perl(peak).ok().split()[1]) < 1 << 18


# --- how parallel ------------------------------------------------------------------------------

PLUGIN = """
    import time
    from pve_pybridge import Status, Storage, StorageConfig, StoragePlugin

    class Turns(StoragePlugin[StorageConfig]):
        type = "turns"
        concurrency = "{}"

        def path(self, storage: Storage, volname: str, snapname: str) -> str:
            time.sleep(0.4)
            return volname

        def status(self, storage: Storage) -> Status:
            return Status(3, 2, 1)

        def list_images(self, storage: Storage, vmid: int, vollist: list) -> list:
            return []
"""


@pytest.mark.parametrize(
    ("concurrency", "same", "different"),
    [("parallel", 0.4, 0.4), ("per-storage", 1.2, 0.4), ("serial", 1.2, 1.2)],
)
def test_concurrency(node: Node, concurrency: str, same: float, different: float) -> None:
    """Three calls of 0.4 s: at once, one after the other for one storage, or for all."""
    node.serve(node.plugin("turns", PLUGIN.format(concurrency)))
    with Faults.raw_clients(node, "turns", 3) as clients:
        for storeids, expected in ((("a", "a", "a"), same), (("a", "b", "c"), different)):
            started = time.monotonic()
            for client, storeid in zip(clients, storeids, strict=True):
                args = {"volname": "vm-1-disk-0"}
                client.send("call", 1, "path", storeid, {"type": "turns"}, args, {})
            assert [client.answer()[0] for client in clients] == ["result"] * 3
            assert expected - 0.05 < time.monotonic() - started < expected + 0.35


def test_waiting_for_a_turn_can_be_given_up(node: Node, tmp_path: Path) -> None:
    server = node.serve(node.plugin("turns", PLUGIN.format("serial").replace("0.4", "2")))
    with Faults.raw_clients(node, "turns", 2) as (first, second):
        args = {"volname": "vm-1-disk-0"}
        first.send("call", 1, "path", "a", {"type": "turns"}, args, {})
        time.sleep(0.2)
        second.send("call", 1, "path", "a", {"type": "turns"}, args, {})
        time.sleep(0.2)
        started = time.monotonic()
        second.send("cancel", 1)
        kind, fields = second.answer()
        assert (kind, fields["error"]["kind"]) == ("error", "cancelled")
        assert time.monotonic() - started < 1
        assert first.answer()[0] == "result"
    assert server.process.poll() is None
