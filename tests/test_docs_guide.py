# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The samples of the author's guide do what their pages say, through PVE and the shim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bridge_util import ROOT, Node
from docs_util import PAGES, blocks, sample
from pve_pybridge.testing.perl import PerlResult

CALL = """
    my ($function, @given) = @ARGS;
    no strict 'refs';
    return &{"PVE::Storage::$function"}(PVE::Storage::config(), @given);
"""
CONFIG = """
    require PVE::API2::Storage::Config;
    require PVE::RPCEnvironment;
    no warnings 'redefine', 'once';
    *PVE::RPCEnvironment::get = sub { return bless {}, 'PVE::RPCEnvironment' };
    *PVE::RPCEnvironment::get_user = sub { return 'root@pam' };
    my ($method, $param) = @ARGS;
    return PVE::API2::Storage::Config->$method($param);
"""
ALLOC = ("100", "raw", None, 1024)
VOLUME = "100/vm-100-disk-0.raw"


def served(node: Node, name: str, storeid: str = "s1", **config: object) -> Path:
    """Serve a sample, with one storage in a directory of its own."""
    type_ = node.enable(node.plugin(name, sample(f"{name}.py")))["type"]
    node.serve(node.base / f"{name}.py")
    folder = node.base / storeid
    folder.mkdir()
    node.add(storeid, type_, **{"path": folder, "content": "images", **config})
    return folder


def pve(node: Node, function: str, *args: object, **options: Any) -> PerlResult:
    """Call a function of PVE::Storage."""
    return node.perl(CALL, function, *args, **options)


def test_every_sample_has_its_test() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_docs*.py"))
    unused = []
    for page in PAGES:
        for block in blocks(page):
            match = re.match(r"# (\w+)\.py\b", block)
            if not match or not re.search(rf'"{match[1]}("|\.py")', tests):
                unused.append(f"{page.name}: {block.splitlines()[0]}")
    assert unused == []


def test_a_storage_in_five_lines(node: Node) -> None:
    folder = served(node, "shelf")
    assert pve(node, "vdisk_alloc", "s1", *ALLOC).ok() == f"s1:{VOLUME}"
    assert (folder / "images" / VOLUME).stat().st_size == 1 << 20


def test_configuration(node: Node) -> None:
    """Checked by PVE (type, range, words) and by the hook (what belongs together)."""
    node.serve(node.plugin("nasdir", sample("nasdir.py")))
    given: dict[str, object] = {
        "storage": "n1",
        "type": "nasdir",
        "path": str(node.base / "n1"),
        "nasdir-server": "filer1",
    }
    refused = node.perl(CONFIG, "create", {**given, "nasdir-version": "3"})
    assert refused.error is not None
    assert "400 Parameter verification failed.\n" in refused.error
    assert "nasdir-retries: must be given for version 3\n" in refused.error
    assert "n1" not in node.storage_cfg()
    node.perl(CONFIG, "create", {**given, "nasdir-version": "3", "nasdir-retries": 5}).ok()
    section = node.storage_cfg().split("nasdir: n1\n")[1]
    assert {"\tnasdir-retries 5", "\tnasdir-server filer1"} <= set(section.splitlines())
    pve(node, "activate_storage", "n1").ok()
    check = "PVE::Storage::Plugin->lookup('nasdir')->check_connection('n1', $ARGS[0])"
    scfg = {"type": "nasdir", "path": "/x", "nasdir-server": "filer1"}
    assert "filer1, 3 attempts" in node.perl(check, scfg).stderr
    properties = node.enable(node.base / "nasdir.py")["properties"]
    assert properties["nasdir-retries"]["maximum"] == 10
    assert properties["nasdir-version"]["enum"] == ["3", "4"]


def test_names(node: Node) -> None:
    node.serve(node.plugin("isoshelf", sample("isoshelf.py")))
    folder = node.base / "isos"
    folder.mkdir()
    (folder / "debian.iso").write_bytes(b"x" * 1000)
    (folder / "notes.txt").write_bytes(b"x")
    node.add("i1", "isoshelf", isoshelf_folder=folder, content="iso")
    (row,) = pve(node, "volume_list", "i1", None, "iso").ok()
    assert (row["volid"], row["size"], row["content"]) == ("i1:iso/debian.iso", 1000, "iso")
    assert pve(node, "path", "i1:iso/debian.iso").ok() == f"{folder}/debian.iso"
    assert pve(node, "volume_size_info", "i1:iso/debian.iso", 5).ok() == 1000
    error = pve(node, "volume_size_info", "i1:iso/gone.iso", 5).error
    assert error == "i1:iso/gone.iso does not exist\n"
    assert pve(node, "path", "i1:notes.txt").error is not None
    assert pve(node, "volume_has_feature", "copy", "i1:iso/debian.iso").ok()
    assert not pve(node, "volume_has_feature", "clone", "i1:iso/debian.iso").ok()


def test_errors(node: Node) -> None:
    served(node, "fussy")
    big = pve(node, "vdisk_alloc", "s1", "100", "raw", None, 2 << 20)
    assert big.error == "s1: 2147483648 bytes don't fit, at most 1 GiB is free\n"
    volid = pve(node, "vdisk_alloc", "s1", *ALLOC).ok()
    grow = pve(node, "volume_resize", volid, 2 << 20, 0).error
    assert grow == "volumes of a fussy storage can't grow\n"
    assert pve(node, "vdisk_list", "s1").error == "s1: the backend sent no list of volumes\n"
    bug = pve(node, "volume_size_info", volid, 5).error
    assert bug is not None
    number = re.search(r"call ([0-9a-z-]+)", bug)
    assert number is not None, bug
    assert "KeyError" not in bug.splitlines()[0] or len(bug.splitlines()) == 1
    log = node.servers[0].log.read_text()
    assert number[1] in log
    assert "KeyError: 'size'" in log


def test_time_and_undo(node: Node) -> None:
    """A caller that goes away leaves nothing behind; one that stays sees the progress."""
    folder = served(node, "slowdir", slowdir_seconds=30)
    code = """
        require Time::HiRes;
        local $SIG{ALRM} = sub { die "gone\\n" };
        Time::HiRes::alarm(1);
        PVE::Storage::vdisk_alloc(PVE::Storage::config(), 's1', 100, 'raw', undef, 1024);
    """
    assert node.perl(code).error == "gone\n"
    ends = time.monotonic() + 10
    while list(folder.glob("reserved-*")):
        assert time.monotonic() < ends, "not undone"
        time.sleep(0.05)
    assert list(folder.rglob("*.raw")) == []
    node.storage_cfg(node.storage_cfg().replace("slowdir-seconds 30", "slowdir-seconds 0"))
    done = pve(node, "vdisk_alloc", "s1", *ALLOC, env={"SECOND": "1"})
    assert done.ok() == f"s1:{VOLUME}"
    assert "initialised 1.0 MiB of 1.0 MiB (100.00%)\n" in done.stderr
    assert list(folder.glob("reserved-*")) == []


def test_concurrency(node: Node) -> None:
    """Eight callers at once, one at a time for the plugin: eight different numbers."""
    folder = served(node, "tally")
    volid = pve(node, "vdisk_alloc", "s1", *ALLOC).ok()
    answers: list[object] = []

    def ask() -> None:
        with node.session() as perl:
            code = "PVE::Storage::get_volume_attribute(PVE::Storage::config(), $ARGS[0], 'notes')"
            answers.append(perl.run(code, volid).ok())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == [str(number) for number in range(1, 9)]
    assert (folder / "tally").read_text() == "8"


def test_secrets(node: Node) -> None:
    served(node, "vault")
    pve(node, "activate_storage", "s1")
    missing = pve(node, "activate_storage", "s1").error
    assert missing == "s1: no token; pvesm set s1 …\n"
    secret = node.etc / "priv/storage/s1.vault-token"
    secret.parent.mkdir(parents=True)
    secret.write_text("t0p-s3cret")
    done = pve(node, "activate_storage", "s1")
    done.ok()
    assert "logging in with ***\n" in done.stderr
    digest = subprocess.run(["sha256sum"], input=b"t0p-s3cret", capture_output=True, check=True)
    assert f"session {digest.stdout[:8].decode()}\n" in done.stderr
    said = node.servers[0].log.read_text() + node.servers[0].trace.read_text()
    assert "t0p-s3cret" not in said


def test_log_and_progress(node: Node) -> None:
    """The task log is the one the page shows."""
    folder = served(node, "chatty")
    page = (ROOT / "docs/guide/running.md").read_text("utf-8")
    shown = page.split("The task log then has:\n\n")[1].split("\n\n- ")[0]
    done = pve(node, "vdisk_alloc", "s1", *ALLOC)
    done.ok()
    assert done.stderr.splitlines() == [line.strip() for line in shown.splitlines()]
    log = node.servers[0].log.read_text()
    assert f"pool {folder} has {1 << 20} bytes" in log
    assert "also only in the log" in log


def test_own_tests(node: Node) -> None:
    """Both test programs run as they are, and the plain one notices a mistake."""
    everything = {**os.environ, **node.env}
    check = node.plugin("tower_check", sample("tower_check.py"))
    command = [sys.executable, "-W", "error", str(check)]
    subprocess.run(command, env=everything, check=True, timeout=60)
    wrong = sample("tower_check.py").replace(
        'type = "tower"\n',
        'type = "tower"\n\n    def list_images(self, storage, vmid, vollist):\n        return []\n',
    )
    check.write_text(wrong)
    failed = subprocess.run(command, env=everything, capture_output=True, check=False)
    assert b"AssertionError" in failed.stderr


def test_own_tests_through_perl(node: Node) -> None:
    script = node.plugin("through_perl", sample("through_perl.py"))
    plugin = node.plugin("shelf", sample("shelf.py"))
    command = [sys.executable, str(script), str(plugin)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def test_a_half_plugin_is_refused_as_shown(node: Node) -> None:
    """The message on the page is the message."""
    half = node.plugin(
        "half",
        """
        from pve_pybridge import StorageConfig, StoragePlugin

        class Half(StoragePlugin[StorageConfig]):
            type = "half"

            def path(self, storage, volname, snapname):
                return "/"
        """,
    )
    shown = re.search(
        r"manifest half\.py\n    (.*)\n", (ROOT / "docs/guide/lifecycle.md").read_text("utf-8")
    )
    assert shown is not None
    done = node.cli("manifest", str(half), check=False)
    assert done.stderr == f"{shown[1]}\n"
    assert done.returncode == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_samples_are_short(page: Path) -> None:
    for block in blocks(page):
        assert len(block.splitlines()) < 80, block.splitlines()[0]
