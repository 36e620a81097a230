# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``list``, ``enable``, ``disable``: a local plugin becomes a storage type, and stops being one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bridge_util import Node, Server
from pve_pybridge import units
from pve_pybridge.manifest import MANIFEST_VERSION
from pve_pybridge.storagecfg import parse
from pve_pybridge.testing.perl import perl_options
from test_shim_manifests import other_plugin

SYSTEMCTL = """\
#!/bin/sh
# What systemd would be told; units are as the directory beside says.
echo "$*" >>{base}/told
case "$*" in
*" enable "*) touch {base}/active ;;
*" disable "*) rm -f {base}/active ;;
*" reload "*)
    [ ! -e {base}/old ] || exit 1
    [ -e {base}/stubborn ] || echo reloaded >>{base}/successors
    ;;
*" show "*)
    echo LoadState=loaded
    echo "MainPID=$(cat {base}/successors 2>/dev/null | wc -l)"
    if [ -e {base}/active ]; then
        echo ActiveState=active
        echo UnitFileState=enabled
    else
        echo ActiveState=inactive
        echo UnitFileState=disabled
    fi
    ;;
esac
"""
TOWER = """
    from dataclasses import dataclass
    from pve_pybridge import Status, StorageConfig, StoragePlugin, option

    @dataclass(frozen=True, kw_only=True)
    class TowerConfig(StorageConfig):
        folder: str = option("Where the volumes are", fixed=True)

    class Tower(StoragePlugin[TowerConfig]):
        type = "tower"

        def path(self, storage, volname, snapname):
            return volname

        def status(self, storage):
            return Status(total=3, avail=2, used=1)

        def list_images(self, storage, vmid, vollist):
            return []
"""


@pytest.fixture
def tower(node: Node) -> Path:
    return node.plugin("tower", TOWER)


@pytest.fixture
def systemd(node: Node) -> Path:
    """A systemctl that notes what it is told: systemd itself is not in charge of this machine."""
    (node.base / "systemd").mkdir()
    command = node.base / "bin" / "systemctl"
    command.parent.mkdir()
    command.write_text(SYSTEMCTL.format(base=node.base))
    command.chmod(0o755)
    node.env["PATH"] = f"{command.parent}:{os.environ['PATH']}"
    return node.base / "told"


def refused(node: Node, *args: str) -> str:
    done = node.cli(*args, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pve-pybridge: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("pve-pybridge: ").rstrip("\n")


def test_enabled_served_used_and_disabled(node: Node, tower: Path) -> None:
    said = node.cli("enable", str(tower)).stdout
    file = node.manifests / "tower.json"
    assert f"storage type 'tower' is enabled: {file}\n" in said
    assert "serve it by 'pve-pybridge serve --type tower'" in said
    assert "systemctl reload-or-try-restart pvedaemon pvestatd pveproxy spiceproxy " in said
    assert file.stat().st_mode & 0o777 == 0o644
    assert json.loads(file.read_text())["plugin"] == str(tower)

    node.servers.append(Server(node, "--type=tower", "tower"))
    node.add("t1", "tower", tower_folder="/x")
    with node.session() as perl:
        info = perl.run("PVE::Storage::storage_info(PVE::Storage::config())->{t1}").ok()
        assert (info["active"], info["total"]) == (1, 3)

    listed = json.loads(node.cli("list", "--json").stdout)
    assert listed == [
        {
            "type": "tower",
            "manifest": MANIFEST_VERSION,
            "wire": 1,
            "table": 1,
            "plugin": str(tower),
            "interpreter": None,
            "state": "no systemd",
            "storages": ["t1"],
        }
    ]
    line = node.cli("list").stdout.splitlines()[1]
    versions = f"manifest {MANIFEST_VERSION}, wire 1, table 1"
    assert line.split() == f"tower {versions} no systemd t1 {tower}".split()

    reason = refused(node, "disable", "tower")
    assert reason.startswith("storage type 'tower' is used by t1: PVE would drop them")
    assert file.exists()
    said = node.cli("disable", "tower", "--force").stdout
    assert not file.exists()
    (saved,) = (node.base / "backups").iterdir()
    assert f"sections of 1 storages saved: {saved}\n" in said
    assert saved.stat().st_mode & 0o777 == 0o600
    assert [(s.type, s.storeid) for s in parse(saved.read_text())] == [("tower", "t1")]
    assert parse(saved.read_text())[0].properties == {"tower-folder": "/x"}
    assert refused(node, "disable", "tower").startswith("storage type 'tower' is not enabled here")
    assert "saved when the type went" not in node.cli("enable", str(tower)).stdout, "still there"
    node.storage_cfg("")
    again = node.cli("enable", str(tower)).stdout
    assert f"sections saved when the type went, in {saved}: t1\n" in again


def test_saved_sections_are_whole_again(node: Node, tower: Path) -> None:
    """What PVE drops comes back unchanged by appending the saved text."""
    node.cli("enable", str(tower))
    node.add("t1", "tower", tower_folder="/x", content="images", nodes="a,b")
    with node.session() as perl:
        before = perl.run("PVE::Storage::config()->{ids}->{t1}").ok()
    node.cli("disable", "tower", "--force")
    write = "PVE::Storage::write_config(PVE::Storage::config())"
    with node.session() as perl:
        perl.run(write).ok()
    assert "t1" not in node.storage_cfg()
    node.cli("enable", str(tower))
    (saved,) = (node.base / "backups").iterdir()
    node.storage_cfg(node.storage_cfg() + "\n" + saved.read_text())
    with node.session() as perl:
        assert perl.run("PVE::Storage::config()->{ids}->{t1}").ok() == before


def test_storage_cfg_is_read_as_pve_reads_it(node: Node, tower: Path) -> None:
    node.cli("enable", str(tower))
    text = (
        "what is this\nTOWER: t1\n\ttower-folder /x y \n  # nodes a\n#tower: t2\n"
        "\tnodes a,b\n\tdisable\n\n"
        "tower: t3\n\ttower-folder /z\n\tcontent images\n"
    )
    node.storage_cfg(text)
    with node.session() as perl:
        theirs = perl.run("PVE::Storage::config()->{ids}").ok()
    ours = {section.storeid: section.decoded() for section in parse(text)}
    assert list(ours) == ["t1", "t3"]
    # PVE knows that 'disable' is a number and that 'content' has a default
    ours["t1"] |= {"disable": 1, "content": theirs["t1"]["content"]}
    assert ours == {storeid: theirs[storeid] for storeid in ours}


def test_units_by_systemd(node: Node, tower: Path, systemd: Path) -> None:
    said = node.cli("enable", str(tower), "--reload").stdout
    assert "pve-pybridge@tower.socket listens for it\nPVE's daemons are reloaded\n" in said
    assert [line.removeprefix("--no-pager ") for line in systemd.read_text().splitlines()] == [
        "daemon-reload",
        "enable --now pve-pybridge@tower.socket",
        "show --property=ActiveState,MainPID pve-pybridge@tower.service",
        "reload pve-pybridge@tower.service",
        "show --property=MainPID pve-pybridge@tower.service",
        "reload-or-try-restart pvedaemon pvestatd pveproxy spiceproxy pvescheduler "
        "pve-ha-lrm pve-ha-crm",
    ]
    assert json.loads(node.cli("list", "--json").stdout)[0]["state"] == "running"
    systemd.unlink()
    again = node.cli("enable", str(tower), "--reload").stdout
    assert "PVE's daemons" not in again, "nothing changed for them"
    told = systemd.read_text().replace("reload pve-pybridge@tower.service", "")
    assert "reload" not in told.replace("daemon-reload", "")
    systemd.unlink()
    node.cli("disable", "tower")
    assert "disable --now pve-pybridge@tower.socket\n" in systemd.read_text()
    assert node.cli("list").stdout == "no storage type is enabled: pve-pybridge enable FILE\n"


def test_a_server_that_gets_no_successor_goes_on(node: Node, tower: Path, systemd: Path) -> None:
    (node.base / "stubborn").touch()
    reason = refused(node, "enable", str(tower))
    assert reason == (
        f"{node.manifests / 'tower.json'} is written, but the running server goes on with the old "
        "code: no successor took over, see journalctl -u pve-pybridge@tower.service"
    )
    assert "restart" not in systemd.read_text()


def test_a_server_that_does_not_run_or_knows_no_reload(
    node: Node, systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", node.env["PATH"])
    restart = "--no-pager try-restart pve-pybridge@tower.service\n"
    units.renew("tower")
    assert systemd.read_text().endswith(restart)
    assert " reload " not in systemd.read_text()
    (node.base / "active").touch()
    (node.base / "old").touch()
    units.renew("tower")
    told = systemd.read_text()
    assert told.endswith(f"--no-pager reload pve-pybridge@tower.service\n{restart}")


def test_systemd_that_refuses(node: Node, tower: Path, systemd: Path) -> None:
    (node.base / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Unit not found.' >&2; exit 5\n")
    reason = refused(node, "enable", str(tower))
    file = node.manifests / "tower.json"
    why = "systemctl daemon-reload: Unit not found."
    assert reason == f"{file} is written, but nobody listens: {why}"
    assert json.loads(node.cli("list", "--json").stdout)[0]["state"].endswith("Unit not found.")


def test_the_type_of_another_plugin(node: Node, tower: Path) -> None:
    node.cli("enable", str(tower))
    second = node.plugin("second", TOWER)
    reason = refused(node, "enable", str(second))
    assert reason.startswith(f"storage type 'tower' is enabled already, for {tower}: ")
    tower.write_text(tower.read_text().replace("Where the", "Where all"))
    node.cli("enable", str(tower))
    assert "Where all" in (node.manifests / "tower.json").read_text()


def test_what_the_shim_would_refuse_is_not_installed(node: Node, tower: Path) -> None:
    lib = other_plugin(node, "tower")
    node.env["PVE_PYBRIDGE_PERL_OPTIONS"] = " ".join(perl_options([lib]))
    reason = refused(node, "enable", str(tower))
    assert reason == (
        "PVE can't take the type as it is: pve-pybridge: storage type 'tower' (tower.json) not "
        "registered: the type exists already (PVE::Storage::Custom::Other)"
    )
    assert list(node.manifests.iterdir()) == []


def test_a_property_of_another_plugin(node: Node, tower: Path) -> None:
    lib = other_plugin(node, "other", "'tower-folder' => { type => 'string' }")
    node.env["PVE_PYBRIDGE_PERL_OPTIONS"] = " ".join(perl_options([lib]))
    reason = refused(node, "enable", str(tower))
    assert reason.endswith("uses the property 'tower-folder' of PVE::Storage::Custom::Other")
    assert list(node.manifests.iterdir()) == []


def test_without_pve(node: Node, tower: Path) -> None:
    node.env["PVE_PYBRIDGE_PERL_OPTIONS"] = "-I/nowhere"
    said = node.cli("enable", str(tower)).stdout
    assert said.startswith("not tried in PVE: there are no PVE modules on this machine\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_plugins_others_could_change(node: Node, tower: Path) -> None:
    tower.chmod(0o666)
    tower.write_text(f"open('{node.base}/run-as-root', 'w')\n" + tower.read_text())
    assert refused(node, "enable", str(tower)) == (
        f"{tower} is not trusted: others than its owner may write it"
    )
    assert not (node.base / "run-as-root").exists()
    tower.chmod(0o644)
    node.base.chmod(0o777)
    assert refused(node, "enable", str(tower)) == (
        f"{tower} is not trusted: {node.base} above it: others than its owner may write it"
    )
    node.base.chmod(0o755)
    os.chown(tower, 65534, 0)
    assert refused(node, "enable", str(tower)) == (
        f"{tower} is not trusted: it must belong to root, not to user 65534"
    )


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["enable", "/none/x.py"], "/none/x.py: no such file"),
        (["enable", "no.such.module"], "no.such.module: ModuleNotFoundError: No module named 'no'"),
        (["disable", "../x"], "'../x' is no storage type"),
        (
            ["enable", "{tower}", "--interpreter", "/none/python"],
            "can't run the interpreter /none/python: No such file or directory",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[-1],
)
def test_refusals(node: Node, tower: Path, args: list[str], reason: str) -> None:
    assert refused(node, *(arg.format(tower=tower) for arg in args)) == reason


def test_manifests_that_cannot_be_read(node: Node, tower: Path) -> None:
    """The others are listed, the reason is told, and disabling one works still."""
    node.cli("enable", str(tower), "--interpreter", sys.executable)
    (node.manifests / "broken.json").write_text("{")
    done = node.cli("list", check=False)
    assert done.returncode == 1
    assert f"({sys.executable})" in done.stdout
    assert "broken.json: no valid JSON" in done.stderr
    node.cli("disable", "broken")
    assert node.cli("list").stderr == ""


CFG = """\
# a comment
dir: local
\tpath /var/lib/vz
\tcontent images,iso
\tdisable

tower: t1
\ttower-folder /a b
\tnodes one,two
no section at all

broken
\tpath /x

tower:  t2
"""


def test_sections() -> None:
    local, first, second = parse(CFG)
    assert (local.type, local.storeid, local.on_node("one")) == ("dir", "local", False)
    assert dict(first.properties) == {"tower-folder": "/a b", "nodes": "one,two"}
    assert (first.on_node("two"), first.on_node("three")) == (True, False)
    assert (second.type, second.storeid, dict(second.properties)) == ("tower", "t2", {})
    assert second.on_node("any")
