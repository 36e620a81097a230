# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What an author did, what PVE would have made of it, and what to write instead: in one line.

``problems`` are refused by the manifest, before PVE sees the plugin; ``remarks`` are only said.
``wrong_answer`` is for a method that returned what it shouldn't.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from .methods import LOCAL, METHODS, Method
from .plugin import StoragePlugin

Plugin = type[StoragePlugin[Any]]

ANSWERS: Final[dict[str, tuple[str, str]]] = {
    "path": ("give QEMU a path that doesn't exist", "return the path, device or URI as str"),
    "str": ("go on with an empty name", "return the name as str"),
    "volid": (
        "write a disk without a volume into the guest's configuration",
        "return the volume name as str, without the storage ID",
    ),
    "status": (
        "show the storage as unknown",
        "return Status(total=…, avail=…, used=…) in bytes, or None while it is inactive",
    ),
    "sizeinfo": (
        "take the volume for empty, and make its copies too small",
        "return VolumeSize(size) in bytes, or raise StorageError for a missing volume",
    ),
    "volumes": (
        "die while it lists the storage, or believe that its volumes are gone",
        "return a list of Volume(volname=…, format=…, size=…), sizes in bytes",
    ),
    "snapinfo": (
        "believe that there are no snapshots",
        "return {name: SnapshotInfo(…)}, or {} when there are none",
    ),
    "prune": (
        "end the backup job with an error",
        "return a list of PruneEntry, one for each backup that was looked at",
    ),
    "formats": ("have no format for a new disk", "return a list of formats, the default first"),
    "strlist": ("find no format for the transfer", "return a list of str, the best first"),
    "blockdev": (
        "start QEMU with options it doesn't know",
        "return a dict with 'driver' and its options: str, int, bool, dict, list",
    ),
    "map": ("die when it reads the answer", "return a dict of str, int, bool, dict and list"),
    "hook": (
        "die after the storage was changed",
        "return None, or a dict of what the administrator shall see once",
    ),
    "attribute": ("show the attribute as unset", "return str, int, bool, or None if unsupported"),
    "cleanup": (
        "call it as a function and die after the volume is gone",
        "return None, or Cleanup(data) for what free_image_cleanup shall do later",
    ),
}
"""Result type → what PVE would do with another type, and what to return."""

MISSING: Final = {
    "path": ("die whenever a volume is used", "the path or device of a volume as str"),
    "status": ("show the storage as unknown", "a Status in bytes, None while inactive"),
    "list_images": ("show no volume, and give new ones names that are taken", "a list of Volume"),
    "volumes": ("show no volume, and give new ones names that are taken", "a list of BlockVolume"),
    "create": ("fail to add a disk to a guest", "nothing; raise VolumeExists if the name is taken"),
    "delete": ("fail to remove a guest", "nothing"),
    "grow": ("fail to resize a disk", "nothing, after volume and device have the new size"),
    "device": ("have no path for QEMU to open", "the path of an attached volume, as str"),
    "attached": ("attach a volume twice", "an Attachment, or None when it isn't attached"),
    "attach": ("fail to start a guest", "nothing, once the device is there"),
    "detach": ("leave the volumes of stopped guests attached", "nothing"),
}
"""Required method or verb → what PVE would do without it, and what it returns."""


def missing(plugin: Plugin, name: str) -> str:
    """A required method that isn't there."""
    would, returns = MISSING.get(name, ("fail whenever it needs it", "what its docstring says"))
    return (
        f"method '{name}' is missing; every storage needs it, without it PVE would {would}: write "
        f"def {name}({', '.join(['self', *_names(getattr(plugin, name))])}), returning {returns}"
    )


def wrong_answer(row: Method, value: object, err: Exception) -> str:
    """A returned value that isn't what the method's row says."""
    would, instead = ANSWERS.get(
        row.result, ("not understand it", "return what docs/methods.md says")
    )
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        instead += "; 'yield' makes a generator, collect a list instead"
    return f"{row.name}: its answer {err}; PVE would {would}; {instead}"


# --- before PVE sees it --------------------------------------------------------------------------


def problems(plugin: Plugin) -> Iterator[str]:
    """What would fail at the first call, one line each."""
    for name, method in _overridden(plugin):
        if not callable(getattr(method, "__func__", method)):
            what = "a property" if isinstance(method, property) else type(method).__name__
            yield (
                f"'{name}' is {what}, but PVE calls it with arguments: write "
                f"def {name}({', '.join(['self', *_names(_base(name))])})"
            )
        elif name in METHODS:
            yield from _signature(name, method)
        else:
            yield from _verb(name, method)


def remarks(plugin: Plugin) -> Iterator[str]:
    """What is probably not meant, one line each."""
    known = [*METHODS, *_verbs(plugin)]
    for name, method in _own(plugin):
        if name.startswith("_") or not callable(method):
            continue
        if name in LOCAL or name == "parse_volname":
            yield f"'{name}' is never called: {_reason(name)}"
        elif name == "on_update_hook":
            yield (
                "'on_update_hook' is never called: PVE's older and newer update hook both come as "
                "'on_update_hook_full'"
            )
        elif not hasattr(_ancestor(plugin), name):
            import difflib  # noqa: PLC0415  2 ms and 0.2 MiB for the few with such a name

            near = difflib.get_close_matches(name, known, 1, 0.8)
            if near:
                yield f"'{name}' is nothing that PVE calls; did you mean '{near[0]}'?"


def _reason(name: str) -> str:
    if name.endswith("_notes"):
        return f"PVE asks for attributes; write {name.replace('notes', 'attribute')} instead"
    instead = "describe the names by the class attribute 'names'"
    return "PVE asks for it without saying which storage, so it is answered from the manifest; " + (
        instead if name == "parse_volname" else "leave it out"
    )


def _signature(name: str, method: Any) -> Iterator[str]:
    """The host passes the storage first and everything else by PVE's names."""
    names = _names(_base(name))[1:]
    write = f"write def {name}({', '.join(['self', 'storage', *names])})"
    parameters = _parameters(method)
    kinds = {p.kind for p in parameters}
    if parameters and parameters[0].name == "self":
        yield f"'{name}' is a staticmethod with 'self', which nobody passes; {write}"
    elif _lacks_self(method):
        yield f"'{name}' lacks 'self', so the storage would be taken for it; {write}"
    elif inspect.Parameter.VAR_KEYWORD in kinds:
        return
    elif not parameters or (names and kinds == {inspect.Parameter.VAR_POSITIONAL}):
        yield (
            f"'{name}' doesn't say which arguments it takes, so PVE's would be lost; {write}, or "
            "put functools.wraps into its decorator"
        )
    else:
        yield from _names_differ(name, names, parameters[1:], write)


def _names_differ(
    name: str, names: list[str], taken: list[inspect.Parameter], write: str
) -> Iterator[str]:
    for parameter in taken:
        if parameter.name not in names and parameter.default is parameter.empty:
            yield (
                f"'{name}' wants an argument '{parameter.name}', which PVE doesn't give: it would "
                f"fail with TypeError at each call; PVE's names count: {write}"
            )
            return
    have = {parameter.name for parameter in taken}
    needed = [arg.name for arg in METHODS[name].args if arg.since == 1 and not arg.optional]
    lost = [arg for arg in needed if arg in names and arg not in have]
    if lost:
        yield f"'{name}' doesn't take '{lost[0]}', so it would ignore what PVE asks for; {write}"


def _verb(name: str, method: Any) -> Iterator[str]:
    """Verbs of a block backend: called by the bridge, in order of their arguments."""
    names = _names(_base(name))
    write = f"write def {name}({', '.join(['self', *names])})"
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        yield (
            f"'{name}' is async, but BlockPlugin's verbs are called one after the other by its own "
            f"code, which would take the coroutine for an answer; {write}"
        )
        return
    if _lacks_self(method):
        yield f"'{name}' lacks 'self', so the storage would be taken for it; {write}"
        return
    try:
        inspect.Signature(_parameters(method)).bind(*names)
    except TypeError as err:
        yield f"'{name}' can't be called as it is ({err}): each use would fail; {write}"


def _parameters(method: Any) -> list[inspect.Parameter]:
    """What a method takes when it is called on an instance."""
    function = getattr(method, "__func__", method)
    parameters = list(inspect.signature(function).parameters.values())
    return parameters if isinstance(method, staticmethod) or not parameters else parameters[1:]


def _lacks_self(method: Any) -> bool:
    first = next(iter(inspect.signature(getattr(method, "__func__", method)).parameters), "")
    return inspect.isfunction(method) and first == "storage"


def _overridden(plugin: Plugin) -> Iterator[tuple[str, Any]]:
    """Methods and verbs that classes outside of the bridge define."""
    known = {*METHODS, *_verbs(plugin)} - LOCAL - {"parse_volname"}
    for name, value in _own(plugin):
        if name in known and _base(name) is not None:
            yield name, value


def _own(plugin: Plugin) -> Iterator[tuple[str, Any]]:
    """(name, attribute) of all that isn't the bridge's, the most derived class first."""
    seen: set[str] = set()
    for cls in plugin.__mro__:
        if cls.__module__.split(".")[0] == __package__:
            return
        for name, value in vars(cls).items():
            if name not in seen:
                seen.add(name)
                yield name, value


def _ancestor(plugin: Plugin) -> type:
    """The class of the bridge that the plugin builds on."""
    return next(cls for cls in plugin.__mro__ if cls.__module__.split(".")[0] == __package__)


def _backend() -> Any:
    """The class that declares a block plugin's verbs; None when no such plugin has imported it.

    Importing it here took every server 15 ms.
    """
    module = sys.modules.get(f"{__package__}.block.backend")
    return module and module.Backend


def _verbs(plugin: Plugin) -> set[str]:
    backend = _backend()
    if not backend or not issubclass(plugin, backend):
        return set()
    return {
        name
        for name, value in vars(backend).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in METHODS
    }


def _base(name: str) -> Any:
    return getattr(StoragePlugin, name, None) or getattr(_backend(), name, None)


def _names(method: Callable[..., Any]) -> list[str]:
    """Argument names of a method, without self."""
    return [name for name in inspect.signature(method).parameters if name != "self"]
