# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``serve --type``: the manifest says where the plugin is and which Python serves it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_util import BRIDGE, Node, Server
from pve_pybridge.client import Client
from pve_pybridge.storagecfg import sections

SOURCE = """
    import sys
    {imports}
    from dataclasses import dataclass
    from pve_pybridge import Status, StorageConfig, StoragePlugin

    class Where(StoragePlugin[StorageConfig]):
        type = "where"

        def path(self, storage, volname, snapname):
            return f"{{sys.executable}} {{{tell}}}"

        def status(self, storage):
            return Status(total=1, avail=1, used=0)

        def list_images(self, storage, vmid, vollist):
            return []
"""


def plain(node: Node) -> Path:
    return node.plugin("where", SOURCE.format(imports="", tell="__file__"))


def write_manifest(node: Node, plugin: Path, *options: str) -> Path:
    file = node.manifests / "where.json"
    node.cli("manifest", str(plugin), "--location", str(plugin), *options, "-o", str(file))
    return file


def asked(node: Node) -> list[str]:
    """Which interpreter and what else the plugin tells of itself."""
    with Client("where", node.run / "where.sock") as client:
        path: str = client.call("path", "w1", {"type": "where"}, volname="vm-1-disk-0")[0]
    return path.split()


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vendor's environment: a package of its own, neither the bridge nor msgpack."""
    base = tmp_path_factory.mktemp("vendor") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", base], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    package = base / "lib" / version / "site-packages"
    (package / "vendorlib.py").write_text("ANSWER = 42\n")
    python = base / "bin" / "python"
    bare = subprocess.run([python, "-c", "import msgpack"], capture_output=True, check=False)
    assert bare.returncode != 0
    return python


def test_the_bridges_own_interpreter(node: Node) -> None:
    file = write_manifest(node, plain(node))
    assert "interpreter" not in json.loads(file.read_text())
    node.servers.append(Server(node, "--type=where", "where"))
    assert asked(node) == [sys.executable, str(node.base / "where.py")]


def test_a_vendors_interpreter_is_lent_the_bridge(node: Node, venv: Path) -> None:
    tell = "vendorlib.ANSWER, 'random' in sys.modules and sys.modules['secrets'].__file__"
    plugin = node.plugin("where", SOURCE.format(imports="import secrets, vendorlib", tell=tell))
    refused = node.cli("manifest", str(plugin), check=False)
    assert refused.returncode == 1
    assert "ModuleNotFoundError: No module named 'vendorlib' (line 3)" in refused.stderr
    write_manifest(node, plugin, "--interpreter", str(venv))
    server = Server(node, "--type=where", "where")
    node.servers.append(server)
    told = asked(node)
    assert told[:2] == [str(venv), "(42,"]
    assert told[2].endswith("secrets.py')")  # the standard library's, not the bridge's
    assert "pve_pybridge" not in told[2]
    assert server.calls("path")[0]["storeid"] == "w1", "--trace is passed on"


def test_a_storage_without_pve_is_passed_on(node: Node, venv: Path) -> None:
    write_manifest(node, plain(node), "--interpreter", str(venv))
    options = ("--storage", "w2", "--config", "content=images")
    server = Server(node, "--type=where", "where", options)
    node.servers.append(server)
    assert "try it: pve-pybridge call w2 status" in server.log.read_text()
    (section,) = sections(node.run / "laptop/etc-pve/storage.cfg")
    assert (section.type, section.storeid, section.properties) == (
        "where",
        "w2",
        {"content": "images"},
    )


def test_same_process_and_descriptors(node: Node, venv: Path) -> None:
    """systemd knows the process by its number, and hands the socket over as descriptor 3."""
    write_manifest(node, plain(node), "--interpreter", str(venv))
    node.run.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(node.run / "where.sock"))
    listener.listen()
    start = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", start, "bash", *BRIDGE, "serve", "--type", "where"],
        env={**os.environ, **node.env},
        pass_fds=[listener.fileno()],
        stderr=subprocess.DEVNULL,
    )
    listener.close()
    try:
        assert asked(node)[0] == str(venv)
        with Client("where", node.run / "where.sock") as client:
            assert client.call("_stats")["pid"] == process.pid
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert command[0] == os.fsencode(venv)
    finally:
        process.terminate()
        assert process.wait(10) == 0
    assert (node.run / "where.sock").exists(), "it is systemd's"


def remove_plugin(node: Node, file: Path) -> None:
    (node.base / "where.py").unlink()


def other_type(node: Node, file: Path) -> None:
    plugin = node.base / "where.py"
    plugin.write_text(plugin.read_text().replace('"where"', '"elsewhere"'))


def edit(**changes: Any) -> Callable[[Node, Path], object]:
    def change(node: Node, file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


BAD: dict[str, tuple[Callable[[Node, Path], object], str]] = {
    "no manifest": (
        lambda node, file: file.unlink(),
        "storage type 'where' is not enabled here: there is no {file}",
    ),
    "no JSON": (lambda node, file: file.write_text("{"), "manifest {file}: no valid JSON: "),
    "no location": (edit(plugin=None), "manifest {file} doesn't say where the plugin is: "),
    "relative": (
        edit(plugin="where.py"),
        "manifest {file}: plugin 'where.py' must be the absolute path of a .py file or a module",
    ),
    "no string": (edit(interpreter=1), "manifest {file}: interpreter 1 must be an absolute path"),
    "other's manifest": (
        lambda node, file: file.chmod(0o666),
        "storage type 'where': {file} is not trusted: others than its owner may write it",
    ),
    "other's plugin": (
        lambda node, file: (node.base / "where.py").chmod(0o777),
        "storage type 'where': {plugin} is not trusted: others than its owner may write it",
    ),
    "other's directory": (
        lambda node, file: node.base.chmod(0o777),
        "storage type 'where': {plugin} is not trusted: {base} above it: others than its owner may",
    ),
    "plugin gone": (
        remove_plugin,
        "storage type 'where': can't read {plugin}: No such file or directory",
    ),
    "interpreter gone": (
        edit(interpreter="/opt/none/python"),
        "can't run the interpreter /opt/none/python: No such file or directory",
    ),
    "another type": (other_type, "{plugin}: this plugin is of type 'elsewhere', not 'where'"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(node: Node, case: str) -> None:
    plugin = plain(node)
    file = write_manifest(node, plugin)
    spoil, reason = BAD[case]
    spoil(node, file)
    done = node.cli("serve", "--type", "where", check=False)
    assert done.returncode == 1
    told = reason.format(file=file, plugin=plugin, base=node.base)
    assert done.stderr.startswith(f"pve-pybridge: {told}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["serve"], "serve: name a plugin, or a storage type by --type"),
        (["serve", "--type", "../x"], "'../x' is no storage type"),
        (
            ["manifest", "{plugin}", "--location", "where.py"],
            "plugin 'where.py' must be the absolute path of a .py file or a module name",
        ),
        (
            ["manifest", "{plugin}", "--interpreter", "python3"],
            "interpreter 'python3' must be an absolute path",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(node: Node, args: list[str], reason: str) -> None:
    plugin = plain(node)
    done = node.cli(*(arg.format(plugin=plugin) for arg in args), check=False)
    assert (done.returncode, done.stderr) == (1, f"pve-pybridge: {reason}\n")


def test_the_shim_takes_both_kinds_of_manifest(node: Node) -> None:
    """The two keys are no news to the shim: with them or without, the type is registered."""
    plugin = plain(node)
    registered = "PVE::Storage::Plugin->lookup('where') ? 1 : 0"
    write_manifest(node, plugin, "--interpreter", "/usr/bin/python3")
    with node.session() as perl:
        assert (perl.run(registered).ok(), perl.startup_stderr) == (1, "")
    node.enable(plugin)
    with node.session() as perl:
        assert (perl.run(registered).ok(), perl.startup_stderr) == (1, "")
