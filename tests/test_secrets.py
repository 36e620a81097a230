# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Secrets through PVE's own storage API: stored for root only, told to nobody else."""

from __future__ import annotations

import contextlib
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from bridge_util import GENUINE, Node
from probe_util import Probe, scfg, wait_until
from pve_pybridge import Secret, StorageError, secrets
from pve_pybridge.testing.perl import PerlResult

API = """
    my ($method, $param) = @ARGS;
    require PVE::API2::Storage::Config;
    require PVE::RPCEnvironment;
    no warnings 'redefine', 'once';
    # outside of a daemon nobody has logged in
    *PVE::RPCEnvironment::get = sub { return bless {}, 'PVE::RPCEnvironment' };
    *PVE::RPCEnvironment::get_user = sub { return 'root@pam' };
    return PVE::API2::Storage::Config->$method($param);
"""
TOKEN = "s3cret-t0ken"
OTHER = "an0ther-t0ken"


@pytest.fixture(params=["this host"] if GENUINE else ["APIVER 12", "APIVER 13"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Both shapes of the update hook: on_update_hook, since APIVER 13 on_update_hook_full."""
    name: str = request.param
    return {} if GENUINE else {"PVE_STANDIN_APIVER": name.removeprefix("APIVER ")}


class Api:
    """PVE's storage API on a node with the probe plugin."""

    def __init__(self, probe: Probe, env: dict[str, str]):
        self.probe = probe
        self.node = probe.node
        self.env = env

    def run(self, method: str, **param: object) -> PerlResult:
        """create, update or delete."""
        given = {key.replace("_", "-"): value for key, value in param.items()}
        return self.node.perl(API, method, given, env=self.env)

    def create(self, storage: str, **param: object) -> Any:
        """Add a storage."""
        return self.run("create", storage=storage, type="probe", content="images", **param).ok()

    def file(self, storage: str) -> Path:
        """Where the token is stored."""
        return self.node.etc / "priv" / "storage" / f"{storage}.probe-token"

    def leaks(self, *values: str) -> list[str]:
        """Every place of the node that shows a secret, but for its file and the probe's record."""
        places = {
            "storage.cfg": self.node.storage_cfg(),
            "trace": self.probe.server.trace.read_text(),
            "log": self.probe.server.log.read_text(),
            "processes": _command_lines(),
        }
        return [name for name, text in places.items() for value in values if value in text]


def _command_lines() -> str:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found.append(file.read_bytes().decode(errors="replace"))
    return "".join(found)


@pytest.fixture
def api(node: Node, env: dict[str, str]) -> Api:
    return Api(Probe(node), env)


@pytest.mark.contract("C-098", "C-096")
@pytest.mark.method("on_add_hook")
def test_added_storage_has_its_secret(api: Api) -> None:
    answer = api.create("s1", probe_token=TOKEN)
    assert answer == {"storage": "s1", "type": "probe"}
    file = api.file("s1")
    assert file.read_text() == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    seen = api.probe.last("on_add_hook")
    assert seen["args"]["sensitive"] == {"probe-token": TOKEN}
    assert "content" in seen["args"]["scfg"]
    assert seen["secrets"] == {"token": TOKEN, "password": None}  # stored before the hook
    assert api.probe.last("activate_storage")["secrets"]["token"] == TOKEN
    assert "probe-token" not in api.node.storage_cfg()
    assert api.leaks(TOKEN) == []


@pytest.mark.contract("C-096")
def test_hook_sees_only_what_was_given(api: Api) -> None:
    api.run("create", storage="s1", type="probe", probe_mode="generate").ok()
    given = api.probe.last("on_add_hook")["args"]["scfg"]
    assert given == {"type": "probe", "probe-mode": "generate"}
    assert "probe-generated made on add" in api.node.storage_cfg()


@pytest.mark.contract("C-099")
@pytest.mark.method("on_update_hook", "on_update_hook_full")
def test_changed_deleted_untouched(api: Api) -> None:
    api.create("s1", probe_token=TOKEN)
    api.create("s2", probe_token=OTHER)

    api.run("update", storage="s1", probe_limit=5).ok()
    seen = api.probe.last("on_update_hook_full")["args"]
    assert (seen["sensitive"], seen["delete"]) == ({}, None)
    assert api.file("s1").read_text() == TOKEN

    api.run("update", storage="s1", probe_token=OTHER).ok()
    seen = api.probe.last("on_update_hook_full")
    assert seen["args"]["sensitive"] == {"probe-token": OTHER}
    assert (seen["secrets"]["token"], seen["config"]["limit"]) == (OTHER, 5)
    assert api.file("s1").read_text() == OTHER
    assert stat.S_IMODE(api.file("s1").stat().st_mode) == 0o600

    api.run("update", storage="s1", delete="probe-token,probe-limit").ok()
    seen = api.probe.last("on_update_hook_full")["args"]
    assert seen["sensitive"] == {"probe-token": None}
    if api.node.perl("return PVE::Storage::APIVER()", env=api.env).ok() < 13:
        assert seen["delete"] is None
    else:
        assert set(seen["delete"]) == {"probe-token", "probe-limit"}
    assert not api.file("s1").exists()
    assert "probe-limit" not in api.node.storage_cfg()
    assert api.file("s2").read_text() == OTHER  # another storage's is untouched
    assert api.leaks(TOKEN, OTHER) == []


@pytest.mark.contract("C-099")
def test_failing_update_changes_no_secret(api: Api) -> None:
    api.create("s1", probe_token=TOKEN, probe_mode="on_update_hook_full:user")
    for change in ({"probe_token": OTHER}, {"delete": "probe-token"}):
        answer = api.run("update", storage="s1", **change)
        assert "the pool is full and so is the other\n" in (answer.error or "")
        assert api.file("s1").read_text() == TOKEN
    assert api.leaks(TOKEN, OTHER) == []


@pytest.mark.contract("C-096")
@pytest.mark.parametrize("fault", ["user", "bug", "param", "exit"])
def test_failing_add_leaves_no_secret(api: Api, fault: str) -> None:
    answer = api.run(
        "create", storage="s1", type="probe", probe_token=TOKEN, probe_mode=f"on_add_hook:{fault}"
    )
    assert answer.error is not None
    assert TOKEN not in answer.error
    assert not api.file("s1").exists()
    assert "s1" not in api.node.storage_cfg()
    assert not api.probe.seen("on_delete_hook")
    assert api.leaks(TOKEN) == []


@pytest.mark.contract("C-097")
@pytest.mark.parametrize("method", ["activate_storage", "check_connection"])
def test_failing_activation_undoes_the_add(api: Api, method: str) -> None:
    answer = api.run(
        "create", storage="s1", type="probe", probe_token=TOKEN, probe_mode=f"{method}:user"
    )
    assert "the pool is full" in (answer.error or "")
    assert api.probe.last("on_delete_hook")["storeid"] == "s1"
    assert not api.file("s1").exists()
    assert "s1" not in api.node.storage_cfg()


@pytest.mark.contract("C-098")
@pytest.mark.method("on_delete_hook")
def test_removed_storage_takes_its_secrets_along(api: Api) -> None:
    api.create("s1", probe_token=TOKEN)
    api.create("s10", probe_token=OTHER)
    assert api.run("delete", storage="s1").error is None
    assert api.probe.last("on_delete_hook")["secrets"]["token"] == TOKEN  # still there for it
    assert not api.file("s1").exists()
    assert api.file("s10").read_text() == OTHER


@pytest.mark.contract("C-098")
def test_secret_as_pve_keeps_its_own(api: Api) -> None:
    """A property of PVE's keeps PVE's file name; offered wherever PVE has the property."""
    known = "return PVE::Storage::Plugin->createSchema()->{properties}->{password} ? 1 : 0;"
    if not api.node.perl(known, env=api.env).ok():
        pytest.skip("this host has no property 'password'")
    api.create("s1", password=TOKEN)
    file = api.node.etc / "priv" / "storage" / "s1.pw"
    assert file.read_text() == TOKEN
    assert api.probe.last("on_add_hook")["secrets"]["password"] == TOKEN
    assert api.leaks(TOKEN) == []


@pytest.mark.contract("C-098")
def test_odd_secrets_survive(api: Api) -> None:
    for number, value in enumerate(("ünïcode ✓", " blanks ", "-----BEGIN\r\nx\n", "")):
        api.probe.call("on_add_hook", f"s{number}", scfg(), "probe-token", value).ok()
        assert api.file(f"s{number}").read_bytes() == value.encode()
        api.probe.call("get_identity", scfg(), f"s{number}").ok()
        assert api.probe.last("get_identity")["secrets"]["token"] == value
    api.probe.call("on_add_hook", "s9", scfg(), "probe-token", b"\xff\x00").ok()
    assert api.file("s9").read_bytes() == b"\xff\x00"


def test_secret_during_a_call_is_in_no_command_line(api: Api) -> None:
    slow = api.probe.fault("sleep", "1")
    code = "PVE::Storage::Custom::PyBridge::probe->on_add_hook('s1', @ARGS)"
    with api.node.session() as perl:
        thread = threading.Thread(target=lambda: perl.run(code, slow, "probe-token", TOKEN))
        thread.start()
        wait_until(lambda: bool(api.probe.seen("sleeping")))
        assert api.leaks(TOKEN) == []
        thread.join(10)
    assert api.file("s1").read_text() == TOKEN


# --- the store by itself -----------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVE_PYBRIDGE_ETC_PVE", str(tmp_path))
    return tmp_path / "priv" / "storage"


def test_repr_hides_it() -> None:
    value = Secret(TOKEN)
    assert value == TOKEN
    shown_as = (repr(value), str(value), f"{value}", f"{value:>20}", f"{value!r}", repr([value]))
    for shown in shown_as:
        assert TOKEN not in shown
        assert "***" in shown


def test_store(store: Path) -> None:
    assert secrets.read("s1", "probe-token") is None
    assert secrets.apply("s1", {"probe-token": TOKEN}) == {"probe-token": None}
    assert secrets.read("s1", "probe-token") == TOKEN
    assert secrets.apply("s1", {"probe-token": None}) == {"probe-token": TOKEN}
    assert list(store.iterdir()) == []
    secrets.remove_all("s1", ["probe-token", "password"])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("password", "s1.pw"),
        ("encryption-key", "s1.enc"),
        ("master-pubkey", "s1.master.pem"),
        ("keyring", "s1.keyring"),
        ("probe-token", "s1.probe-token"),
    ],
)
def test_file_names(store: Path, name: str, file: str) -> None:
    secrets.apply("s1", {name: TOKEN})
    assert [path.name for path in store.iterdir()] == [file]


def test_failure_restores_what_was_there(store: Path) -> None:
    """As without quorum, when the cluster file system is read-only."""
    secrets.apply("s1", {"a": "old"})
    secrets.path("s1", "b").mkdir()
    (secrets.path("s1", "b") / "x").write_text("")
    with pytest.raises(StorageError, match=r"\Acan't store secrets of storage 's1': .+\Z"):
        secrets.apply("s1", {"a": "new", "c": "new", "b": "new"})
    assert secrets.read("s1", "a") == "old"
    assert secrets.read("s1", "c") is None
    assert sorted(path.name for path in store.iterdir()) == ["s1.a", "s1.b"]


def test_unreadable_secret(store: Path) -> None:
    secrets.path("s1", "a").mkdir(parents=True)
    with pytest.raises(StorageError) as caught:
        secrets.read("s1", "a")
    assert str(caught.value) == "can't read 'a' of storage 's1': Is a directory"
