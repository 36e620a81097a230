# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge call``: any method from the shell, with and without PVE and Perl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from author_util import Running, tray
from bridge_util import Node
from pve_pybridge.cli import values
from pve_pybridge.errors import StorageError
from pve_pybridge.methods import METHODS
from pve_pybridge.offnode import Files
from pve_pybridge.storagecfg import decoded


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a storage of the plugin."""
    with Node(tmp_path_factory.mktemp("call")) as node:
        node.serve(tray(node))
        node.add("tr", "tray", tray_folder=node.base / "store")
        yield node


def call(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return node.cli("call", *words, check=False)


def test_life_of_a_volume_on_a_node(served: Node) -> None:
    for way in ((), ("--perl",)):
        done = call(served, *way, "tr", "alloc_image", "vmid=100", "format=raw", "size=1M")
        assert (done.returncode, done.stdout, done.stderr) == (0, "vm-100-disk-0\n", "")
        volname = done.stdout.strip()
        done = call(served, *way, "tr", "list_images", "--json")
        row = {"volid": f"tr:{volname}", "format": "raw", "size": 1 << 20}
        assert json.loads(done.stdout) == [row]
        hints = "hints.guest-is-windows=1"
        done = call(served, *way, "tr", "activate_volume", f"volname=tr:{volname}", hints)
        assert (done.returncode, done.stdout) == (0, "ok\n")
        assert done.stderr.startswith(f"activating {volname} for Windows: ")
        done = call(served, *way, "tr", "free_image", f"volname={volname}", "is_base=0")
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    assert call(served, "tr", "list_images").stdout == "0 volumes\n"


def test_hints_as_json_and_one_by_one(served: Node) -> None:
    for words in (
        ["hints.guest-is-windows=1"],
        ['hints={"guest-is-windows": true}'],
        ['hints={"guest-is-windows": false}', "hints.guest-is-windows=1"],
    ):
        done = call(served, "tr", "activate_volume", "volname=vm-1-a", *words)
        assert done.stderr == "activating vm-1-a for Windows: True\n"


def test_answers_for_people(served: Node) -> None:
    assert call(served, "tr", "status").stdout == "400 B of 1000 B used, 600 B free\n"
    assert call(served, "tr", "status", "--json").stdout == "[\n 1000,\n 600,\n 400,\n 1\n]\n"
    call(served, "tr", "alloc_image", "vmid=7", "format=raw", "size=3K", "name=vm-7-x")
    assert call(served, "tr", "list_images", "vmid=7").stdout == (
        "volid       format  size\ntr:vm-7-x  raw     3 KiB\n".replace(
            "volid       ", "volid      "
        )
    )
    done = call(served, "tr", "get_volume_attribute", "volname=vm-7-x", "attribute=notes")
    assert done.stdout == "Größe ✓\n"
    assert call(served, "tr", "path", "volname=vm-7-x").stdout == (
        f"{served.base}/store/vm-7-x (guest 7)\n"
    )
    call(served, "tr", "free_image", "volname=vm-7-x")


@pytest.mark.parametrize("way", [[], ["--perl"]], ids=["socket", "perl"])
def test_data_goes_through_files(served: Node, way: list[str], tmp_path: Path) -> None:
    (served.base / "store/vm-5-a").write_bytes(b"\x00data\xff")
    stream = tmp_path / "stream"
    common = ["with_snapshots=0", "format=raw+size"]
    done = call(served, *way, "tr", "volume_export", f"fh={stream}", "volname=vm-5-a", *common)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    assert stream.read_bytes() == b"\x00data\xff"
    done = call(served, *way, "tr", "volume_import", f"fh={stream}", "volname=vm-5-b", *common)
    assert done.returncode == 0, done.stderr
    assert (served.base / "store/vm-5-b").read_bytes() == b"\x00data\xff"
    for name in ("a", "b"):
        (served.base / f"store/vm-5-{name}").unlink()


WRONG = [
    (["status", "now"], "'now' is none of its arguments: status takes no arguments"),
    (["path"], "'volname' is missing: path takes volname=TEXT [snapname=TEXT]"),
    (
        ["alloc_image", "vmid=x"],
        "'vmid' can't be 'x': alloc_image takes vmid=NUMBER format=TEXT [name=TEXT] "
        "size=BYTES (1G works)",
    ),
    (
        ["volume_resize", "volname=a", "size=1X"],
        "'size' can't be '1X': volume_resize takes volname=TEXT size=BYTES (1G works) "
        "[running=0|1] [snapname=TEXT]",
    ),
    (
        ["activate_volume", "volname=a", "hints=1"],
        "'hints' must be a JSON object, or write hints.NAME=VALUE: activate_volume takes "
        "volname=TEXT [snapname=TEXT] [hints.NAME=VALUE …]",
    ),
    (["path", "volname.x=a"], "'volname' has no parts: path takes volname=TEXT [snapname=TEXT]"),
    (
        ["activate_volumes"],
        "there is no method 'activate_volumes'; did you mean activate_volume, deactivate_volume?",
    ),
    (["frob"], "there is no method 'frob'; docs/methods.md has them all"),
    (
        ["resize_volume"],
        "there is no method 'resize_volume'; did you mean volume_resize?",
    ),
    (["volume_export", "volname=a", "format=raw"], "'fh' is missing: volume_export takes "),
    (["get_subdir", "vtype=iso"], "get_subdir never reaches a plugin, PVE answers it by itself"),
    (["status", "--config", "a=b"], "--config goes with --plugin; this storage is configured in"),
    (
        ["create_base", "volname=vm-1-a"],
        "storage type 'tray' does not support create_base (PVE gets this refusal; see --perl)",
    ),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_words_get_one_line(served: Node, words: list[str], message: str) -> None:
    done = call(served, "tr", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"pve-pybridge: {message}")
    assert done.stderr.count("\n") == 1


def test_storage_that_is_not_there(served: Node) -> None:
    assert call(served, "nope", "status").stderr == (
        f"pve-pybridge: storage 'nope' is not in {served.etc}/storage.cfg; to try a plugin without "
        "PVE: --plugin FILE --config OPTION=VALUE\n"
    )
    assert "server for type 'dir' is not running" in call(served, "local", "status").stderr


def test_static_methods_through_perl(served: Node) -> None:
    """What never reaches a plugin PVE answers by itself."""
    done = call(served, "--perl", "--json", "tr", "parse_volname", "volname=vm-9-disk-1")
    assert json.loads(done.stdout)[:3] == ["images", "vm-9-disk-1", "9"]
    args = ["feature=copy", "volname=vm-9-disk-1", "running=0"]
    assert call(served, "--perl", "tr", "volume_has_feature", *args).stdout == "yes\n"


# --- without a node ------------------------------------------------------------------------------


def test_a_plugin_file_is_enough(node: Node) -> None:
    plugin = str(tray(node))
    words = ["--plugin", plugin, "--config", f"folder={node.base}/store"]
    for way in ([], ["--perl"]):
        done = call(node, *way, "demo", "status", *words)
        assert done.stdout == "400 B of 1000 B used, 600 B free\n", done.stderr
    secret = ["--config", "token=t0ken"]
    done = call(node, "demo", "deactivate_volume", "volname=vm-1-a", *words, *secret)
    assert done.returncode == 1
    assert "the array refused 'Bearer t0ken'" in done.stderr
    done = call(node, "demo", "status", "--plugin", plugin)
    assert done.stderr == "pve-pybridge: type 'tray' needs --config folder=…\n"
    done = call(node, "demo", "status", *words, "--config", "nope=1")
    assert done.stderr == (
        "pve-pybridge: --config nope: no such option; there are folder, slow, token\n"
    )
    done = call(node, "demo", "status", *words, "--config", "slow=fast")
    assert "property 'tray-slow' must be a number, not 'fast'" in done.stderr


def test_storages_that_serve_makes(node: Node) -> None:
    words = ["--storage", "demo", "--config", f"folder={node.base}/store"]
    server = Running(node, "serve", str(tray(node)), *words, wait_for="try it")
    assert "try it: pve-pybridge call demo status\n" in server.text
    for way in ([], ["--perl"]):
        assert call(node, *way, "demo", "status").stdout.startswith("400 B of 1000 B used")
    assert server.stop() == 0


# --- the pieces ----------------------------------------------------------------------------------


def test_every_method_has_a_usage() -> None:
    for row in METHODS.values():
        assert values.usage(row).startswith(f"{row.name} takes ")


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("4K", 4096), ("1GiB", 1 << 30), ("2tb", 2 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    row = METHODS["volume_resize"]
    assert values.arguments(row, ["volname=a", f"size={text}"])[0]["size"] == size


def test_values_by_their_type() -> None:
    row = METHODS["prune_backups"]
    given, _ = values.arguments(row, ["keep.keep-last=3", "keep.keep-daily=1", "dryrun=yes"])
    assert given == {"keep": {"keep-last": 3, "keep-daily": 1}, "dryrun": True}
    row = METHODS["list_images"]
    assert values.arguments(row, ["vollist=a:b,c:d"])[0] == {"vollist": ["a:b", "c:d"]}
    with pytest.raises(StorageError, match="'dryrun' can't be 'maybe'"):
        values.arguments(METHODS["prune_backups"], ["keep.keep-last=3", "dryrun=maybe"])


def test_storage_cfg_as_pve_decodes_it(tmp_path: Path) -> None:
    files = Files(tmp_path, tmp_path / "run")
    files.make()
    file = files.storage_cfg
    file.write_text(
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso,backup\n\tdisable\n\n"
        "# comment\n"
        "tray: t1\n\ttray-folder /a b\n\tnodes a,b\n\tcontent-dirs iso=x,backup=y/z\n"
        "\ttray-host one\n\ttray-host two\n"
    )
    assert decoded(file) == {
        "local": {
            "type": "dir",
            "path": "/var/lib/vz",
            "content": {"iso": 1, "backup": 1},
            "disable": "1",
        },
        "t1": {
            "type": "tray",
            "tray-folder": "/a b",
            "nodes": {"a": 1, "b": 1},
            "content-dirs": {"iso": "x", "backup": "y/z"},
            "tray-host": ["one", "two"],
        },
    }
    before = decoded(file)
    files.add("t2", {"type": "tray", "tray-folder": "/c"})
    assert decoded(file) == {**before, "t2": {"type": "tray", "tray-folder": "/c"}}
    assert decoded(tmp_path / "none") == {}
