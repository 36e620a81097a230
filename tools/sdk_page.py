# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/sdk.md: every public name of the package, from its signature and its docstring.

Called by generate_docs.py.  What a method is to PVE comes from the method table; everything else is
said in the source, where it is wrong or missing in the page, too.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final

import pve_pybridge
from pve_pybridge import block, model, names, newfile
from pve_pybridge.block.backend import Backend
from pve_pybridge.block.plugin import _REQUIRED
from pve_pybridge.methods import LOCAL, METHODS
from pve_pybridge.process import Completed
from pve_pybridge.storage import Call
from pve_pybridge.volume_methods import VolumeMethods

INTRO: Final = """# The SDK

Every public name of `pve_pybridge`, as `from pve_pybridge import …` has it. Sizes are bytes and
times seconds since the epoch, unless a name says otherwise. A line like *PVE: `alloc_image`, since
APIVER 1* names the sub of PVE's plugin class that a Python method stands for, and the first version
of PVE's storage interface that has it. C-… and T-… are numbers of [the contract](contract.md).

Any method may raise [StorageError](#storageerror) or one of its kin; anything else is an internal
error for the caller ([Errors](guide/errors.md)).
"""
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "Bases of plugins": ("StoragePlugin", "BlockPlugin", "DirectoryPlugin"),
    "The call": ("Storage", "Hints", "Host"),
    "Configuration": (
        *("StorageConfig", "DirectoryConfig", "option", "builtin", "secret", "Secret"),
    ),
    "What methods return": (
        *("Status", "Volume", "VolumeSize", "VolumeName", "SnapshotInfo", "PruneEntry", "Cleanup"),
        *("BlockVolume", "Attachment"),
    ),
    "Units": ("Bytes", "Seconds", "UnixTime"),
    "Names and rules": ("NamePattern", "Rule", "BLOCK_NAMES", "DIRECTORY_NAMES"),
    "Errors": (
        *("StorageError", "ParameterError", "NotSupported", "DeadlineExceeded"),
        *("RollbackBlocked", "VolumeExists", "Cancelled"),
    ),
}
"""Part of the page → names of ``pve_pybridge.__all__``; a name that is in none comes last."""
HIDDEN: Final = frozenset({"__version__"})
OPTIONAL: Final = (
    *(
        "size",
        "volume_names",
        "rename",
        "clone",
        "snapshot",
        "snapshot_delete",
        "snapshot_rollback",
    ),
    *("snapshots", "options_for"),
)


def page() -> str:
    """The whole page."""
    out = [INTRO]
    placed = {name for part in PARTS.values() for name in part}
    rest = tuple(sorted(set(pve_pybridge.__all__) - placed - HIDDEN))
    for part, members in {**PARTS, "Further names": rest}.items():
        if members:
            out.append(f"## {part}\n")
            out += [entry(name, getattr(pve_pybridge, name), pve_pybridge) for name in members]
        if part == "The call":
            out.append(entry("Call", Call, pve_pybridge))
            out.append(entry("Completed", Completed, pve_pybridge))
    out.append(helpers())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).rstrip() + "\n"


def helpers() -> str:
    """The modules beside the package's own names."""
    out = ["## Helpers\n", entry("block.name_taken", block.name_taken, block)]
    out.append(f"### newfile\n\n`from pve_pybridge import newfile`. {doc(newfile)}\n")
    for name in ("unnamed", "path_of", "give_name", "replace", "rename", "remove_leftovers"):
        out.append(method(newfile, name, getattr(newfile, name)))
    out.append("## Testing kit\n\nFrom `pve_pybridge.testing` and its module `perl`.\n")
    testing = importlib.import_module("pve_pybridge.testing")
    perl = importlib.import_module("pve_pybridge.testing.perl")
    found = {name: getattr(testing, name) for name in getattr(testing, "__all__", ())}
    for name in ("PerlSession", "PerlResult", "PerlCrashed", "is_genuine", "perl_include_dirs"):
        found.setdefault(name, getattr(perl, name))
    out += [entry(name, item, testing) for name, item in found.items()]
    return "\n".join(out)


# --- entries -------------------------------------------------------------------------------------


def entry(name: str, item: Any, home: ModuleType) -> str:
    """One public name, with its attributes and methods."""
    if not inspect.isclass(item):
        if inspect.isfunction(item):
            return method(home, name, item, "###")
        return f"### {name}\n\n{constant_doc(name)}\n"
    title = f"### {name}\n\n{bases(item)}{doc(item)}\n"
    if name == "DirectoryPlugin":
        return title
    out = [title, attributes(item)]
    if name == "BlockPlugin":
        out = [title, attributes(Backend)]
        out.append("Required verbs:\n")
        out += [method(Backend, verb, getattr(Backend, verb)) for verb in _REQUIRED]
        out.append("Optional verbs; each one that is there is something the storage can do:\n")
        out += [method(Backend, verb, getattr(Backend, verb)) for verb in OPTIONAL]
        return "\n".join(out)
    owners = [item, VolumeMethods] if name == "StoragePlugin" else [item]
    for owner in owners:
        for verb, what in vars(owner).items():
            if not verb.startswith("_") and is_method(what):
                out.append(method(owner, verb, what))
    return "\n".join(out)


def is_method(what: object) -> bool:
    """Whether a class attribute is something to call or to read as a property."""
    return inspect.isfunction(what) or isinstance(what, classmethod | staticmethod | property)


def method(owner: Any, name: str, what: Any, level: str = "####") -> str:
    """Signature, what it is to PVE, docstring."""
    wrapped: Any = what.fget if isinstance(what, property) else getattr(what, "__func__", what)
    function = inspect.unwrap(wrapped)
    plain = name.rpartition(".")[2]
    source = inspect.getsource(function)
    if isinstance(what, property):
        shown = f"{plain}: {signature(function, plain).partition('-> ')[2]}"
    else:
        shown = signature(function, plain)
    lines = [f"{level} {name}\n", f"```text\n{shown}\n```\n"]
    if inspect.isclass(owner) and issubclass(owner, VolumeMethods) and owner is not Backend:
        lines.append(to_pve(plain))
    context = "@contextmanager" in source or "@contextlib.contextmanager" in source
    lines.append(("*A context manager.* " if context else "") + doc(function) + "\n")
    return "\n".join(lines)


def to_pve(name: str) -> str:
    """What the method table says of it, in a line."""
    row = METHODS.get(name)
    if row is None:
        return "*Ours; PVE has no such sub.*\n"
    said = [f"PVE: `{name}`, since APIVER {row.since}", f"without it: {row.absent}"]
    if name in LOCAL or name == "parse_volname":
        said.append("answered by the shim")
    if row.limit is not None:
        said.append(f"answer within {row.limit:g} s")
    if row.locked:
        said.append("under PVE's lock")
    said.append("may be repeated" if row.retry else "never repeated")
    return f"*{'; '.join(said)}*\n"


def bases(item: type) -> str:
    """Which public class it derives from."""
    named = [
        f"[{base.__name__}](#{base.__name__.lower()})"
        for base in item.__mro__[1:]
        if base.__name__ in pve_pybridge.__all__
    ]
    return f"*A {', '.join(named)}.* " if named else ""


def attributes(item: type) -> str:
    """Class attributes and dataclass fields with type, default, and the string below them."""
    rows = []
    fields = (
        {field.name: field for field in dataclasses.fields(item)}
        if dataclasses.is_dataclass(item)
        else {}
    )
    for name, type_, value, said in annotated(item):
        if name.startswith("_") or (fields and name not in fields):
            continue
        shown = type_.replace("ConfigT", "your config").replace("|", "\\|")
        default = "" if value is None else "`" + value.replace("|", "\\|") + "`"
        rows.append(f"| `{name}` | `{shown}` | {default} | {said} |")
    if not rows:
        return ""
    return "\n".join(["| Name | Type | Default | Meaning |", "|---|---|---|---|", *rows]) + "\n"


def annotated(item: type) -> Iterator[tuple[str, str, str | None, str]]:
    """Name, type, default and docstring of a class's annotated attributes, from its source."""
    body = _class_body(item)
    for number, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        type_ = re.sub(r"^ClassVar\[(.*)\]$", r"\1", ast.unparse(node.annotation))
        after = body[number + 1] if number + 1 < len(body) else None
        said = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said = _markdown(" ".join(str(after.value.value).split())).replace("|", "\\|")
        yield node.target.id, type_, _default(node.value), said


def _default(value: ast.expr | None) -> str | None:
    """A default as text; of option(), builtin() and field() what they hold."""
    if isinstance(value, ast.Call):
        for word in value.keywords:
            if word.arg in ("default", "default_factory"):
                shown = ast.unparse(word.value)
                return "empty" if shown in ("dict", "ExitStack", "frozenset()") else shown
        return None
    if value is None or len(ast.unparse(value)) > 40:
        return None
    return ast.unparse(value)


@cache
def _class_body(item: type) -> list[ast.stmt]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(item))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return tree.body


# --- text ----------------------------------------------------------------------------------------


def signature(function: Any, name: str) -> str:
    """As in the source, without what says nothing here: self, ConfigT, Answer."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    tree.args.args = [arg for arg in tree.args.args if arg.arg not in ("self", "cls")]
    returns = "" if tree.returns is None else f" -> {ast.unparse(tree.returns)}"
    shown = f"{name}({ast.unparse(tree.args)}){returns}"
    shown = re.sub(r"Answer\[(.*)\]$", r"\1", shown).replace("[ConfigT]", "")
    if len(shown) <= 96:
        return shown
    inner = ",\n    ".join(_arguments(tree.args))
    return f"{name}(\n    {inner},\n){returns}".replace("[ConfigT]", "").replace("Answer[", "", 1)[
        : -1 if "Answer[" in returns else None
    ]


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument as text: split the unparsed list at its outer commas."""
    parts, depth, start, text = [], 0, 0, ast.unparse(args)
    for number, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append(text[start:number].strip())
            start = number + 1
    return [*parts, text[start:].strip()]


def doc(item: Any) -> str:
    """The docstring in Markdown; AssertionError where a public name has none."""
    said = inspect.getdoc(item)
    assert said, f"{item!r} has no docstring"
    return _markdown(said)


def constant_doc(name: str) -> str:
    """The string below a module's constant or type."""
    tree = [node for module in (names, model) for node in ast.parse(inspect.getsource(module)).body]
    for node, after in itertools.pairwise(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(target is not None and ast.unparse(target) == name for target in targets):
            assert isinstance(after, ast.Expr)
            assert isinstance(after.value, ast.Constant)
            return _markdown(str(after.value.value))
    raise AssertionError(f"{name} has no docstring")


def _markdown(text: str) -> str:
    """Our docstrings are near enough: doubled backquotes, and roles of another tool."""
    text = re.sub(r":(?:class|meth|func):`([^`]+)`", r"`\1`", text)
    text = re.sub(r"^(Args|Raises|Returns):$", r"\1:\n", text, flags=re.M)
    text = re.sub(r"^    (\w+): ", r"- `\1`: ", text, flags=re.M)
    text = re.sub(r"^        (?=\S)", "  ", text, flags=re.M)
    return (
        text.replace("``", "`")
        .replace("<", "&lt;")
        .replace("`vm-&lt;vmid>-disk-&lt;n>`", "`vm-<vmid>-disk-<n>`")
    )
