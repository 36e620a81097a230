# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors that teach: one line with what PVE would have done and what to write instead."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge_util import Node
from pve_pybridge import BlockPlugin, StorageError, StoragePlugin, advice, manifest
from pve_pybridge.host import Host
from pve_pybridge.loader import load
from pve_pybridge.methods import METHODS
from pve_pybridge.model import Hints
from pve_pybridge.plugin import implemented
from pve_pybridge.results import RESULTS, RESULTS_OF_STORAGE
from pve_pybridge.storage import Call

HEAD = """
import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from pve_pybridge import *
from pve_pybridge import builtin, option, secret
"""
PLAIN = """
class Mine(StoragePlugin{config}):
    type = "mine"
    def path(self, storage, volname, snapname): return "/x"
    def status(self, storage): return None
    def list_images(self, storage, vmid, vollist): return []
{more}
"""
BLOCK = """
class Mine(BlockPlugin):
    type = "mine"
    def volumes(self, storage): return []
    def create(self, storage, name, size): pass
    def delete(self, storage, name): pass
    def grow(self, storage, name, size, device): pass
    def device(self, storage, name, snapname): return "/x"
    def attached(self, storage, name, snapname): return None
    def attach(self, storage, name, snapname, options): pass
    def detach(self, storage, name, snapname): pass
    def status(self, storage): return None
{more}
"""


def plain(more: str = "", config: str = "") -> str:
    return PLAIN.format(more=textwrap.indent(textwrap.dedent(more), "    "), config=config)


def block(more: str = "") -> str:
    return BLOCK.format(more=textwrap.indent(textwrap.dedent(more), "    "))


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        file = tmp_path / "mine.py"
        file.write_text(HEAD + textwrap.dedent(text))
        return str(file)

    return write


def refusal(file: str) -> str:
    with pytest.raises(StorageError) as caught:
        manifest.build(load(file))
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{file}: ").removeprefix("plugin Mine: ")


REFUSED = {
    "no type": (
        plain().replace('    type = "mine"\n', ""),
        'class Mine has no type, by which PVE finds a storage\'s plugin: write type = "mine" in '
        "its first line",
    ),
    "PVE's type": (
        plain().replace('"mine"', '"rbd"'),
        "type 'rbd' is PVE's own; choose another name",
    ),
    "other argument name": (
        plain("def volume_size_info(self, storage, name, timeout): return VolumeSize(1)"),
        "'volume_size_info' wants an argument 'name', which PVE doesn't give: it would fail with "
        "TypeError at each call; PVE's names count: write def volume_size_info(self, storage, "
        "volname, timeout)",
    ),
    "argument left out": (
        plain("def alloc_image(self, storage, vmid, format, name): return 'x'"),
        "'alloc_image' doesn't take 'size', so it would ignore what PVE asks for; write def "
        "alloc_image(self, storage, vmid, format, name, size)",
    ),
    "no self": (
        plain("def get_identity(storage): return 'x'"),
        "'get_identity' lacks 'self', so the storage would be taken for it; write def "
        "get_identity(self, storage)",
    ),
    "static with self": (
        plain("@staticmethod\ndef get_identity(self, storage): return 'x'"),
        "'get_identity' is a staticmethod with 'self', which nobody passes; write def "
        "get_identity(self, storage)",
    ),
    "property": (
        plain("@property\ndef get_identity(self): return 'x'"),
        "'get_identity' is a property, but PVE calls it with arguments: write def "
        "get_identity(self, storage)",
    ),
    "value": (
        plain("get_identity = 'x'"),
        "'get_identity' is str, but PVE calls it with arguments: write def "
        "get_identity(self, storage)",
    ),
    "decorator that hides": (
        plain("""
            def logged(method):
                def inner(*args): return method(*args)
                return inner
            @logged
            def volume_snapshot(self, storage, volname, snapname): pass
        """),
        "'volume_snapshot' doesn't say which arguments it takes, so PVE's would be lost; write def "
        "volume_snapshot(self, storage, volname, snapname), or put functools.wraps into its "
        "decorator",
    ),
    "missing verb": (
        block().replace("    def grow(self, storage, name, size, device): pass\n", ""),
        "method 'grow' is missing; every storage needs it, without it PVE would fail to resize a "
        "disk: write def grow(self, storage, name, size, device), returning nothing, after volume "
        "and device have the new size",
    ),
    "async verb": (
        block("async def size(self, storage, name): return 1"),
        "'size' is async, but BlockPlugin's verbs are called one after the other by its own code, "
        "which would take the coroutine for an answer; write def size(self, storage, name)",
    ),
    "verb without an argument": (
        block("def rename(self, storage, name): pass"),
        "'rename' can't be called as it is (too many positional arguments): each use would fail; "
        "write def rename(self, storage, name, new_name)",
    ),
    "option without description": (
        "@dataclass(frozen=True, kw_only=True)\nclass Config(StorageConfig):\n    host: str\n"
        + plain(config="[Config]"),
        "Config.host has no description for PVE, which would refuse it in storage.cfg: write host: "
        "… = option('what it is'), or secret()",
    ),
    "no dataclass": (
        "class Config(StorageConfig):\n    host: str = option('Host')\n" + plain(config="[Config]"),
        "class Config is no dataclass, so PVE would know nothing of 'host': write "
        "@dataclass(frozen=True, kw_only=True) above it",
    ),
    "property without prefix": (
        "@dataclass(frozen=True, kw_only=True)\nclass Config(StorageConfig):\n"
        "    host_name: str = builtin()\n" + plain(config="[Config]"),
        "PVE has no property 'host-name', so hosts would leave the option out; host_name = "
        "option(…) makes it 'mine-host-name'",
    ),
    "type of an option": (
        "@dataclass(frozen=True, kw_only=True)\nclass Config(StorageConfig):\n"
        "    wait: timedelta = option('How long')\n" + plain(config="[Config]"),
        "PVE has no property type for <class 'datetime.timedelta'>; use str, int, float, bool, "
        "Literal or list",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_pve_sees_it(source: Callable[[str], str], text: str, message: str) -> None:
    assert refusal(source(text)) == message


REMARKS = {
    "misspelt": (
        plain("def activate_volumes(self, storage, volname, snapname, hints): pass"),
        "'activate_volumes' is nothing that PVE calls; did you mean 'activate_volume'?",
    ),
    "never asked": (
        plain("def parse_volname(self, volname): pass"),
        "'parse_volname' is never called: PVE asks for it without saying which storage, so it is "
        "answered from the manifest; describe the names by the class attribute 'names'",
    ),
    "old hook": (
        plain("def on_update_hook(self, storage, update, sensitive): pass"),
        "'on_update_hook' is never called: PVE's older and newer update hook both come as "
        "'on_update_hook_full'",
    ),
    "deprecated": (
        plain("def get_volume_notes(self, storage, volname, timeout): return ''"),
        "'get_volume_notes' is never called: PVE asks for attributes; write get_volume_attribute "
        "instead",
    ),
}


@pytest.mark.parametrize(("text", "message"), REMARKS.values(), ids=REMARKS.keys())
def test_remarks_are_said_and_the_plugin_is_taken(
    node: Node, source: Callable[[str], str], text: str, message: str
) -> None:
    done = node.cli("manifest", source(text))
    assert done.stderr == f"pve-pybridge: plugin Mine: {message}\n"
    assert json.loads(done.stdout)["type"] == "mine"


def test_good_plugins_get_no_advice(source: Callable[[str], str]) -> None:
    good = [
        plain("async def get_identity(self, storage): return 'x'"),
        plain("def activate_volume(self, store, volname, snapname, *, extra=3): pass"),
        plain("def volume_snapshot(self, storage, **given): pass"),
        plain("@staticmethod\ndef get_identity(storage): return 'x'"),
        plain("@classmethod\ndef get_identity(cls, storage): return 'x'"),
        plain("""
            def logged(method):
                @functools.wraps(method)
                def inner(*args, **given): return method(*args, **given)
                return inner
            @logged
            def volume_snapshot(self, storage, volname, snapname): pass
        """),
        block("def size(self, store, which): return 1"),
        block("def helper(self): pass"),
    ]
    for text in good:
        cls = load(source(text))
        manifest.build(cls)
        assert list(advice.remarks(cls)) == []


ANSWERS = {
    "generator": (
        "def list_images(self, storage, vmid, vollist): yield Volume(volname='x', format='raw')",
        "list_images",
        "list_images: its answer must be a list of Volume, not generator; PVE would die while it "
        "lists the storage, or believe that its volumes are gone; return a list of "
        "Volume(volname=…, format=…, size=…), sizes in bytes; 'yield' makes a generator, collect a "
        "list instead",
    ),
    "tuple": (
        "def status(self, storage): return (1, 2, 3)",
        "status",
        "status: its answer must be Status or None, not tuple; PVE would show the storage as "
        "unknown; return Status(total=…, avail=…, used=…) in bytes, or None while it is inactive",
    ),
    "not serialisable": (
        "def get_import_metadata(self, storage, volname): return {'when': datetime.now()}",
        "get_import_metadata",
        "get_import_metadata: its answer may hold only str, int, float, bool, None, lists and "
        "dicts, not datetime; PVE would die when it reads the answer; return a dict of str, int, "
        "bool, dict and list",
    ),
    "nothing": (
        "def alloc_image(self, storage, vmid, format, name, size): pass",
        "alloc_image",
        "alloc_image: its answer must be str, not NoneType; PVE would go on with an empty name; "
        "return the name as str",
    ),
    "a size as text": (
        "def volume_size_info(self, storage, volname, timeout): return VolumeSize('1G')",
        "volume_size_info",
        "volume_size_info: its answer must have 'size' in bytes, not '1G'; PVE would take the "
        "volume for empty, and make its copies too small; return VolumeSize(size) in bytes, or "
        "raise StorageError for a missing volume",
    ),
}


@pytest.mark.parametrize(("more", "method", "message"), ANSWERS.values(), ids=ANSWERS.keys())
def test_wrong_answer_in_full(
    source: Callable[[str], str], more: str, method: str, message: str
) -> None:
    host = Host(load(source(plain(more))))
    args = {"volname": "vm-1-x", "vmid": 1, "format": "raw", "size": 1}
    wanted = {arg.name for arg in METHODS[method].args}
    with pytest.raises(TypeError) as caught:
        host.call(
            Call(method=method), "s", {"type": "mine"}, {k: args[k] for k in args if k in wanted}
        )
    assert str(caught.value) == message


def test_every_result_type_has_advice() -> None:
    """But for those that take any answer, and those that the shim makes itself."""
    checked = {row.result for row in METHODS.values()} & {*RESULTS, *RESULTS_OF_STORAGE}
    checked |= {"path", "cleanup"}
    assert checked - set(advice.ANSWERS) == {"none", "true", "bool"}
    for name in ("path", "status", "list_images"):
        assert name in advice.MISSING
    assert set(BlockPlugin.missing()) <= set(advice.MISSING)


def test_own_classes_keep_to_the_signatures() -> None:
    """What the advice asks of authors, the bridge's own base classes do."""
    for cls in (StoragePlugin, BlockPlugin):
        for name in METHODS:
            if implemented(cls, name):
                assert "storage" in inspect.signature(getattr(cls, name)).parameters
    assert Hints({"guest-is-windows": 0}).guest_is_windows is False


# --- requirements that come later ----------------------------------------------------------------

CONFIG = """
@dataclass(frozen=True, kw_only=True)
class Config(StorageConfig):
    host: str = option("Host")
"""


def test_required_option_added_later(node: Node, source: Callable[[str], str]) -> None:
    out = str(node.base / "mine.json")
    node.cli("manifest", source(CONFIG + plain(config="[Config]")), "-o", out)
    before = Path(out).read_text()
    more = CONFIG + '    pool: str = option("Pool")\n' + plain(config="[Config]")
    done = node.cli("manifest", source(more), "-o", out, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "pve-pybridge: option 'mine-pool' is required, but wasn't before: PVE could read no "
        "storage.cfg with an older 'mine' section, and show no storage at all; give it a default\n"
    )
    assert Path(out).read_text() == before
    fine = more.replace('option("Pool")', 'option("Pool", default="a")')
    node.cli("manifest", source(fine), "-o", out)
    assert "mine-pool" in json.loads(Path(out).read_text())["options"]


def test_differences_of_manifests() -> None:
    old = {"type": "x", "formats": [["raw"], "raw"], "options": {"a": {}, "b": {}}}
    new = {
        "type": "x",
        "formats": [["raw", "qcow2"], "raw"],
        "options": {"a": {"fixed": 1}, "c": {}},
    }
    assert manifest.differences(old, old) == []
    assert manifest.differences(old, new) == ["formats", "options (new c; gone b; changed a)"]


def test_messages_are_one_plain_line() -> None:
    texts = [text for pair in advice.ANSWERS.values() for text in pair]
    texts += [text for pair in advice.MISSING.values() for text in pair]
    for text in texts:
        assert re.fullmatch(r"[^\n]+[^.\n]", text)
