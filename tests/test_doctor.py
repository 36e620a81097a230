# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge doctor`` is silent on a healthy node and names each seeded fault, and its cure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from bridge_util import BRIDGE, ROOT, Node
from doctor_util import Patient
from pve_pybridge.doctor import node as doctor_node
from pve_pybridge.doctor.findings import Report
from pve_pybridge.doctor.registry import CHECKS, TITLES
from pve_pybridge.doctor.run import run
from pve_pybridge.version import SHIM_VERSION, __version__
from test_enable import SYSTEMCTL
from test_shim_manifests import OTHER, other_plugin

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the doctor is root")


@pytest.fixture
def patient(node: Node) -> Patient:
    return Patient(node)


def test_healthy(patient: Patient) -> None:
    patient.node.cli("enable", str(patient.plugin))
    told = patient.examine()
    assert [(one["name"], one["findings"]) for one in told["checks"]] == [(n, []) for n in CHECKS]
    assert told["level"] == "ok"
    text = patient.node.cli("doctor").stdout.splitlines()
    assert text[0].endswith(": all is well")
    assert [line.split()[:2] for line in text[1:]] == [["ok", name] for name in CHECKS]


def test_json_is_stable(patient: Patient) -> None:
    """Keys are only added: monitoring reads this."""
    patient.manifest.chmod(0o666)
    told = patient.examine()
    assert {*told} == {"schema", "release", "node", "level", "checks"}
    assert (told["schema"], told["release"], told["level"]) == (1, __version__, "fault")
    keys = {"name", "title", "level", "summary", "seconds", "findings"}
    assert all({*check} == keys for check in told["checks"])
    assert {check["name"]: check["title"] for check in told["checks"]} == TITLES
    (finding,) = told["checks"][list(CHECKS).index("manifests")]["findings"]
    assert finding == {
        "level": "fault",
        "where": str(patient.manifest),
        "what": "others than its owner may write it",
        "mend": f"chown root:root {patient.manifest}; chmod go-w {patient.manifest}",
    }


# --- seeded faults -------------------------------------------------------------------------------

Seed = Callable[[Patient], object]


def missing_perl_module(patient: Patient) -> None:
    """@INC as it is on a node without the package."""
    hide = "unshift @INC, sub { die qq{no $_[1]\\n} if $_[1] eq 'Data/MessagePack.pm'; return };"
    (patient.perl_library() / "Hide.pm").write_text(f"package Hide; {hide} 1;")
    patient.perl_options(f"-I{patient.perl_library()}", "-MHide")


def other_shim(patient: Patient) -> None:
    copy = patient.node.base / "perl"
    shutil.copytree(ROOT / "perl", copy)
    file = copy / "PVE/Storage/Custom/PyBridge.pm"
    file.write_text(file.read_text().replace("our $VERSION = 1;", "our $VERSION = 0;"))
    patient.perl_options(f"-I{copy}")


def no_shim(patient: Patient) -> None:
    library = patient.perl_library() / "PVE/Storage/Custom"
    library.mkdir(parents=True)
    (library / "PyBridge.pm").write_text("this is no Perl")
    patient.perl_options(f"-I{patient.perl_library()}")


def colliding_type(patient: Patient) -> None:
    patient.perl_options(f"-I{other_plugin(patient.node, 'vault')}")


def colliding_property(patient: Patient) -> None:
    lib = other_plugin(patient.node, properties="'vault-folder' => { type => 'string' }")
    patient.perl_options(f"-I{lib}")


def pve_dies(patient: Patient) -> None:
    """Two plugins of others with one property: every PVE daemon is down."""
    common = "'common' => { type => 'string' }"
    lib = other_plugin(patient.node, properties=common)
    text = OTHER.format(type="third", properties=common, options="").replace("Other;", "Third;")
    (lib / "PVE/Storage/Custom/Third.pm").write_text(text)
    patient.perl_options(f"-I{lib}")


def other_release(patient: Patient) -> None:
    """A server that nobody restarted after an upgrade."""
    patient.server.stop()
    old = patient.node.base / "old"
    shutil.copytree(ROOT / "bridge/pve_pybridge", old / "pve_pybridge")
    (old / "pve_pybridge/version.py").write_text("__version__ = '0.0.9'\n")
    patient.node.env["PYTHONPATH"] = str(old)
    patient.serve()
    del patient.node.env["PYTHONPATH"]


def plugin_changed(patient: Patient) -> None:
    os.utime(patient.plugin)
    since = patient.plugin.stat().st_ctime
    while patient.plugin.stat().st_ctime < since + 2.5:
        os.utime(patient.plugin)


def fake_socket(patient: Patient) -> None:
    patient.server.stop()
    patient.socket.write_text("")


def foreign_socket(patient: Patient) -> None:
    os.chown(patient.socket, 65534, 0)


def interpreter_gone(patient: Patient) -> None:
    python = patient.node.base / "python"
    python.symlink_to(sys.executable)
    patient.node.cli("enable", str(patient.plugin), "--interpreter", str(python))
    python.unlink()


def interpreter_broken(patient: Patient) -> None:
    python = patient.node.base / "python"
    python.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 127\n")
    python.chmod(0o755)
    patient.edit(interpreter=str(python))


def rewrite(path: str, old: str, new: str) -> Seed:
    def change(patient: Patient) -> None:
        file = patient.node.base / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return change


def no_secret_in_section(patient: Patient) -> None:
    patient.node.add("v2", "vault", vault_folder="/x", keyring="hunter2")


SEEDS: dict[str, tuple[Seed, str, str, str, str]] = {
    # fault: how it is made, check, level, where, what
    "perl module missing": (
        missing_perl_module,
        *("registration", "fault", "Perl", "the module Data::MessagePack is missing"),
    ),
    "another shim": (
        other_shim,
        *("versions", "fault", "PyBridge.pm", "it is version 0, this release goes with 1"),
    ),
    "shim doesn't load": (
        no_shim,
        *("registration", "fault", "PVE", "did not load PVE::Storage::Custom::PyBridge"),
    ),
    "type of another plugin": (
        colliding_type,
        *("registration", "fault", "vault.json", "the type exists already"),
    ),
    "property of another plugin": (
        colliding_property,
        *("registration", "fault", "vault.json", "uses the property 'vault-folder' of"),
    ),
    "PVE itself can't start": (
        pve_dies,
        *("registration", "fault", "registration", "PVE's storage modules don't load: "),
    ),
    "manifest of a newer table": (
        lambda it: it.edit(table=99),
        *("versions", "fault", "vault.json", "it is of table version 99"),
    ),
    "manifest of a newer format": (
        lambda it: it.edit(manifest=3),
        *("registration", "fault", "vault.json", "this shim reads up to 2: update pve-pybridge"),
    ),
    "manifest writable": (
        lambda it: it.manifest.chmod(0o664),
        *("manifests", "fault", "vault.json", "others than its owner may write it"),
    ),
    "manifest of somebody else": (
        lambda it: os.chown(it.manifest, 65534, 0),
        *("manifests", "fault", "vault.json", "it must belong to root, not to user 65534"),
    ),
    "manifest cut": (
        lambda it: it.manifest.write_text(it.manifest.read_text()[:99]),
        *("manifests", "fault", "vault.json", "no valid JSON"),
    ),
    "manifest directory writable": (
        lambda it: it.node.manifests.chmod(0o777),
        *("manifests", "fault", "plugins.d", "others than its owner may write it"),
    ),
    "manifest out of date": (
        rewrite("vault.py", "Where the volumes are", "Where volumes are"),
        *("manifests", "warning", "vault.json", "its plugin has other properties"),
    ),
    "plugin broken": (
        rewrite("vault.py", "Vault(", "Vault(("),
        *("manifests", "fault", "vault.json", "syntax error in line"),
    ),
    "plugin gone": (
        lambda it: it.plugin.unlink(),
        *("manifests", "fault", "vault.json", "vault.py is gone"),
    ),
    "plugin writable": (
        lambda it: it.plugin.chmod(0o666),
        *("manifests", "fault", "vault.py", "others than its owner may write it"),
    ),
    "interpreter gone": (
        interpreter_gone,
        *("manifests", "fault", "vault.json", "is gone or can't be run"),
    ),
    "interpreter broken": (
        interpreter_broken,
        *("python", "fault", "vault.json", "fails: no such library"),
    ),
    "run directory open": (
        lambda it: it.node.run.chmod(0o755),
        *("sockets", "fault", "run", "its mode is 0755: others than root get in"),
    ),
    "run directory missing": (
        lambda it: shutil.rmtree(it.node.run),
        *("sockets", "fault", "run", "the run directory is missing"),
    ),
    "socket open": (
        lambda it: it.socket.chmod(0o666),
        *("sockets", "fault", "vault.sock", "its mode is 0666"),
    ),
    "socket of somebody else": (
        foreign_socket,
        *("sockets", "fault", "vault.sock", "it belongs to user 65534"),
    ),
    "no socket": (
        fake_socket,
        *("sockets", "fault", "vault.sock", "it is no socket"),
    ),
    "server gone": (
        lambda it: it.server.stop(),
        *("sockets", "fault", "vault.sock", "no socket, but storages need it"),
    ),
    "server killed": (
        lambda it: it.server.stop(signal.SIGKILL),
        *("servers", "fault", "server of type 'vault'", "Connection refused"),
    ),
    "server of another release": (
        other_release,
        *("servers", "warning", "server of type 'vault'", "it still runs release 0.0.9"),
    ),
    "plugin changed since": (
        plugin_changed,
        *("servers", "warning", "server of type 'vault'", "vault.py changed since it was started"),
    ),
    "session expired": (
        lambda it: (it.node.base / "expired").touch(),
        *("status", "fault", "storage 'v1'", "it gives no status: the session has expired"),
    ),
    "backend gone": (
        lambda it: (it.node.base / "gone").touch(),
        *("status", "warning", "storage 'v1'", "it is inactive"),
    ),
    "unknown type": (
        lambda it: it.node.add("z1", "zeppelin", path="/x"),
        *("storages", "fault", "storage 'z1'", "no plugin for type 'zeppelin'"),
    ),
    "secret open": (
        lambda it: it.secret.chmod(0o644),
        *("secrets", "fault", "v1.keyring", "its mode is 0644: others than root may use it"),
    ),
    "secret of somebody else": (
        lambda it: os.chown(it.secret, 65534, 0),
        *("secrets", "fault", "v1.keyring", "it belongs to user 65534, not to root"),
    ),
    "secrets' directory open": (
        lambda it: it.secret.parent.chmod(0o755),
        *("secrets", "fault", "storage", "its mode is 0755"),
    ),
    "secret in storage.cfg": (
        no_secret_in_section,
        *("secrets", "fault", "storage 'v2'", "the secret 'keyring' is in storage.cfg"),
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_seeded_fault(patient: Patient, seed: str) -> None:
    make, *expected = SEEDS[seed]
    make(patient)
    check, level, where, what = expected
    found = patient.findings(check)
    mine = [f for f in found if f[:2] == (check, level) and f[2].endswith(where) and what in f[3]]
    assert len(mine) == 1, found


@pytest.mark.parametrize("writable", ["plugin", "manifest", "directory", "interpreter"])
def test_nothing_of_others_is_run(patient: Patient, writable: str) -> None:
    """The doctor is root: what others could have written, he only looks at."""
    marker = patient.node.base / "run-as-root"
    python = patient.node.base / "python"
    python.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    python.chmod(0o755)
    patient.edit(interpreter=str(python))
    patient.examine("manifests", "python")
    assert marker.exists()
    marker.unlink()
    paths = {"plugin": patient.plugin, "manifest": patient.manifest, "interpreter": python}
    path = paths.get(writable, patient.node.base)
    path.chmod(path.stat().st_mode | 0o002)
    assert patient.examine("manifests", "python")["level"] == "fault"
    assert not marker.exists()
    path.chmod(path.stat().st_mode & ~0o002)


def test_full_run_directory(patient: Patient) -> None:
    """A file system of its own with no room left."""
    run = patient.node.run
    patient.server.stop()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(run)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        server = patient.serve()
        fill = ["dd", "if=/dev/zero", f"of={run}/ballast", "bs=4k"]
        assert b"No space left" in subprocess.run(fill, capture_output=True, check=False).stderr
        (found,) = patient.findings("sockets", "servers")
        assert found[:3] == ("sockets", "fault", str(run))
        assert "its file system is full" in found[3]
        server.stop()
    finally:
        subprocess.run(["umount", "--lazy", run], check=True)


def test_hung_servers_cost_no_more_than_their_own_line(patient: Patient) -> None:
    """One that is stopped, one that listens and never accepts: both are told, within bounds."""
    os.kill(patient.server.process.pid, signal.SIGSTOP)
    try:
        told = patient.examine()
        by_name = {check["name"]: check for check in told["checks"]}
        for name in ("servers", "status"):
            (finding,) = by_name[name]["findings"]
            assert "the plugin server doesn't answer" in finding["what"]
        assert [n for n, c in by_name.items() if c["level"] != "ok"] == ["servers", "status"]
        assert max(check["seconds"] for check in told["checks"]) < 25
    finally:
        os.kill(patient.server.process.pid, signal.SIGCONT)


def test_a_server_that_accepts_nobody(patient: Patient) -> None:
    patient.server.stop()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(patient.socket))
        patient.socket.chmod(0o600)
        listener.listen(0)
        fill = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        try:
            for one in fill:
                one.setblocking(False)
                one.connect_ex(str(patient.socket))
            ((name, level, _, what),) = patient.findings("servers")
        finally:
            for one in fill:
                one.close()
    assert (name, level) == ("servers", "fault")
    assert "vault" in what


@pytest.mark.parametrize(
    ("change", "level", "what"),
    [
        ("LoadState=not-found", "fault", "systemd says 'not-found'"),
        ("ActiveState=inactive", "fault", "it doesn't listen: inactive"),
        ("UnitFileState=disabled", "warning", "it listens, but is disabled: not after a reboot"),
        ("ActiveState=failed", "fault", "the server failed: "),
        ("", "fault", "no answer in 5 s"),
    ],
)
def test_units(patient: Patient, change: str, level: str, what: str) -> None:
    (patient.node.base / "systemd").mkdir()
    systemctl = patient.node.base / "bin" / "systemctl"
    systemctl.parent.mkdir()
    key = change.partition("=")[0]
    text = SYSTEMCTL.format(base=patient.node.base)
    if change == "":
        text = "#!/bin/sh\nexec sleep 20\n"
    elif change == "ActiveState=failed":
        text = text.replace(
            'case "$*" in', 'case "$*" in\n*.service) echo ActiveState=failed ;;', 1
        )
    else:
        text = re.sub(rf"{key}=(loaded|active|enabled)", change, text)
    systemctl.write_text(text)
    systemctl.chmod(0o755)
    (patient.node.base / "active").touch()
    patient.node.env["PATH"] = f"{systemctl.parent}:{os.environ['PATH']}"
    found = patient.findings("units")
    assert [(f[1], what in f[3]) for f in found] == [(level, True)], found


def test_without_pve_and_without_anything(node: Node) -> None:
    """A machine that is no PVE node, nothing enabled: nothing to complain of."""
    node.env["PVE_PYBRIDGE_PERL_OPTIONS"] = "-I/nowhere"
    (node.etc / "storage.cfg").unlink()
    done = node.cli("doctor")
    assert "not tried: there are no PVE modules on this machine" in done.stdout


def test_without_msgpack(patient: Patient) -> None:
    """The one dependency is missing: said by every command in a line, and by the doctor."""
    hide = patient.node.base / "hide" / "msgpack"
    hide.mkdir(parents=True)
    (hide / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'msgpack'\", name='msgpack')"
    )
    patient.node.env["PYTHONPATH"] = str(hide.parent)
    found = patient.findings("versions", "servers")
    assert {f[0] for f in found} == {"versions", "servers"}
    assert all("msgpack is missing" in f[3] for f in found)
    done = patient.node.cli("stats", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "pve-pybridge: python3-msgpack is missing: apt install it\n",
    )


def test_without_msgpack_seen_by_the_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that import one module at once: after the first failed, others see another error."""

    def check(node: doctor_node.Node, report: Report) -> None:
        raise ImportError("cannot import name 'codec' from 'pve_pybridge'")

    monkeypatch.setitem(sys.modules, "msgpack", None)
    (outcome,) = run(doctor_node.Node(), {"servers": check})
    (found,) = outcome.report.findings
    assert "msgpack is missing" in found.what


def test_as_another_user(node: Node) -> None:
    shared = ["setpriv", "--reuid=65534", "--clear-groups", *BRIDGE, "doctor"]
    done = subprocess.run(
        shared,
        env={**os.environ, **node.env, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in done.stderr or "No module named" in done.stderr:
        pytest.skip("the checkout can't be read by another user")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "pve-pybridge: doctor must run as root: only root sees sockets, secrets and processes\n"
    )


def test_unknown_check(node: Node) -> None:
    done = node.cli("doctor", "pulse", check=False)
    assert (done.returncode, done.stderr) == (3, "pve-pybridge: no such check: pulse\n")


def test_shim_version_is_said_twice_alike() -> None:
    """The shim can't import Python's."""
    shim = (ROOT / "perl/PVE/Storage/Custom/PyBridge.pm").read_text()
    assert f"our $VERSION = {SHIM_VERSION};" in shim


def test_the_guide_has_every_check() -> None:
    guide = (ROOT / "docs/doctor.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \| (.*?) \|$", guide, re.M)
    assert dict(table) == TITLES
    assert json.dumps(list(TITLES)) == json.dumps(list(CHECKS))


def test_age_of_the_last_status(patient: Patient) -> None:
    """What PVE asked counts, not what the doctor asks himself."""
    assert patient.examine("status")["checks"][0]["summary"] == "v1 not yet"
    patient.node.perl("PVE::Storage::storage_info(PVE::Storage::config())").ok()
    summary = patient.examine("status")["checks"][0]["summary"]
    assert re.fullmatch(r"v1 \d+ s ago", summary)
    again = patient.examine("status")["checks"][0]["summary"]
    assert int(again.split()[1]) >= int(summary.split()[1])
