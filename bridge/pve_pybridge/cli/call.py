# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge call``: any method of any storage from the shell.

Directly over the socket, or with ``--perl`` through PVE::Storage and the shim, as PVE does it.  On
a node the storage is looked up in storage.cfg; with ``--plugin`` a server is started for this one
call, so that it works on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from ..client import CallFailed, Client
from ..errors import StorageError
from ..methods import LOCAL, Method
from ..paths import etc_pve, manifests_dir, run_dir, socket_path
from ..storagecfg import decoded
from ..testing.perl import PerlCrashed, PerlSession
from ..testing.sandbox import HELLO, Sandbox, perl_missing
from . import laptop
from .show import pretty
from .values import arguments, row_of, usage

ABSENT: Final = {
    "inherit": "PVE uses its own base method",
    "refuse": "PVE gets this refusal",
    "static": "PVE gets the answer of the manifest's rules",
}
"""What becomes of a method that a plugin doesn't implement."""
_BEFORE: Final = frozenset(
    {"activate_storage", "deactivate_storage", "check_connection", "get_identity", "path"}
    | {"on_add_hook", "on_update_hook", "on_update_hook_full", "on_delete_hook"}
)
"""Methods that PVE calls on storages that aren't active."""
_SCRIPT: Final = Path(__file__).with_name("call.pl")
_PVE_PERL: Final = Path("/usr/share/perl5")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``call``."""
    call = commands.add_parser(
        "call",
        help="call a method of a storage, as PVE would",
        description="Sizes are bytes (1G works), parts of maps are written hints.NAME=VALUE.",
    )
    call.add_argument("storage", help="storage ID, as in storage.cfg")
    call.add_argument("method", help="PVE's name of the method, such as alloc_image")
    call.add_argument("arguments", nargs="*", metavar="NAME=VALUE")
    call.add_argument("--plugin", metavar="FILE", help="serve this plugin for the one call")
    call.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="with --plugin: an option of the storage",
    )
    call.add_argument("--perl", action="store_true", help="through PVE::Storage and the shim")
    call.add_argument("--json", action="store_true", help="print the answer as PVE gets it")
    call.set_defaults(run=_call)


def _call(args: argparse.Namespace) -> int:
    row = row_of(args.method)
    given, file = arguments(row, args.arguments)
    if "volname" in given:  # a volume ID will do
        given["volname"] = given["volname"].removeprefix(f"{args.storage}:")
    if row.name in LOCAL and not args.perl:
        raise StorageError(
            f"{row.name} never reaches a plugin, PVE answers it by itself: try --perl"
        )
    started = time.monotonic()
    with _descriptor(row, file) as stream:
        if args.plugin:
            answer = _in_sandbox(args, row, given, stream)
        else:
            answer = _on_this_machine(args, row, given, stream)
        seconds = time.monotonic() - started
    out = sys.stderr if file == "-" and "export" in row.name else sys.stdout
    if args.json:
        print(json.dumps(answer, indent=1), file=out)
    else:
        print(pretty(row.result, answer), file=out)
        if sys.stderr.isatty():
            print(f"({seconds * 1000:.1f} ms)", file=sys.stderr)
    return 0


def _command(args: argparse.Namespace) -> str:
    """What traces show of us: not the whole command line, there may be secrets in it."""
    return f"pve-pybridge call {args.storage} {args.method}"


# --- where the storage is ------------------------------------------------------------------------


def _in_sandbox(
    args: argparse.Namespace, row: Method, given: dict[str, Any], stream: IO[bytes] | None
) -> Any:
    with Sandbox() as sandbox:
        type_ = sandbox.add(args.storage, args.plugin, **laptop.options(args.config))
        sandbox.serve(args.plugin)
        try:
            if args.perl:
                return _through_perl(args.storage, row, given, stream, sandbox.env)
            scfg = decoded(sandbox.config_file)[args.storage]
            with sandbox.client(type_, 3600, command=_command(args)) as client:
                _activate(client, args.storage, row, scfg)
                return _ask(client, args.storage, row, scfg, given, stream)
        finally:  # what the plugin printed, as its journal would have it
            said = sandbox.log.read_text(errors="replace").splitlines()
            for line in said:
                if "listening on" not in line:
                    print(line, file=sys.stderr)


def _on_this_machine(
    args: argparse.Namespace, row: Method, given: dict[str, Any], stream: IO[bytes] | None
) -> Any:
    if args.config:
        raise StorageError("--config goes with --plugin; this storage is configured in storage.cfg")
    scfg, env = find(args.storage)
    if args.perl:
        return _through_perl(args.storage, row, given, stream, env)
    hello = {**HELLO, "command": _command(args)}
    with Client(scfg["type"], socket_path(scfg["type"]), 3600, hello) as client:
        if env["PVE_PYBRIDGE_ETC_PVE"] != str(etc_pve()):
            _activate(client, args.storage, row, scfg)
        return _ask(client, args.storage, row, scfg, given, stream)


def find(storeid: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A storage's section, and the environment in which Perl finds it, too."""
    node = {
        "PVE_PYBRIDGE_ETC_PVE": str(etc_pve()),
        "PVE_PYBRIDGE_MANIFESTS": str(manifests_dir()),
        "PVE_PYBRIDGE_RUN": str(run_dir()),
    }
    for env in (node, laptop.files().env):
        sections = decoded(Path(env["PVE_PYBRIDGE_ETC_PVE"]) / "storage.cfg")
        if storeid in sections:
            return _defaults(sections[storeid], Path(env["PVE_PYBRIDGE_MANIFESTS"])), env
    raise StorageError(
        f"storage '{storeid}' is not in {etc_pve()}/storage.cfg; to try a plugin without PVE: "
        "--plugin FILE --config OPTION=VALUE"
    )


def _defaults(scfg: dict[str, Any], manifests: Path) -> dict[str, Any]:
    """What PVE fills in when it reads a section: the type's default content, and ``shared``."""
    try:
        facts = json.loads((manifests / f"{scfg['type']}.json").read_bytes())
    except (OSError, ValueError):
        return scfg
    filled = {"content": dict.fromkeys(facts["content"][1], 1), **scfg}
    for name, schema in facts["properties"].items():
        if schema.get("type") == "array" and isinstance(filled.get(name), str):
            filled[name] = [filled[name]]
    return {**filled, "shared": 1} if facts.get("shared") else filled


# --- the call ------------------------------------------------------------------------------------


def _activate(client: Client, storeid: str, row: Method, scfg: Mapping[str, Any]) -> None:
    """PVE activates a storage before it uses it, and every ten seconds; here nobody else does."""
    if row.name not in _BEFORE:
        try:
            client.ask("activate_storage", storeid, scfg)
        except CallFailed as err:
            if err.kind != "unsupported":  # not implemented, so there is nothing to do
                raise


def _ask(
    client: Client,
    storeid: str,
    row: Method,
    scfg: Mapping[str, Any],
    given: Mapping[str, Any],
    stream: IO[bytes] | None,
) -> Any:
    operation = f"{os.getpid()}-call"
    fd = stream.fileno() if stream else None
    try:
        value, _ = client.ask(row.name, storeid, scfg, given, fd=fd, operation=operation)
    except CallFailed as err:
        hint = f" ({ABSENT[row.absent]}; see --perl)" if err.kind == "unsupported" else ""
        blockers = err.error.get("blockers")
        hint += f" (in the way: {', '.join(blockers)})" if blockers else ""
        fields = err.error.get("errors") or {}
        hint += "".join(f" {name}: {why}." for name, why in fields.items())
        raise StorageError(f"{err}{hint}") from None
    if row.result == "cleanup" and value:
        print("cleaning up, which PVE leaves for a task of its own", file=sys.stderr)
        client.ask("free_image_cleanup", storeid, scfg, value, operation=operation)
        return None
    return value


def _through_perl(
    storeid: str,
    row: Method,
    given: Mapping[str, Any],
    stream: IO[bytes] | None,
    env: Mapping[str, str],
) -> Any:
    missing = perl_missing()
    if missing:
        raise StorageError(f"--perl needs more than there is here: {missing}")
    if (_PVE_PERL / "PVE/Storage.pm").exists():  # a node: the genuine modules are PVE's own
        os.environ.setdefault("PVE_PERL5LIB", str(_PVE_PERL))
    told = {
        "args": [[arg.name, arg.type, arg.since] for arg in row.args],
        "context": row.context,
    }
    file = f"/proc/{os.getpid()}/fd/{stream.fileno()}" if stream else ""
    code = _SCRIPT.read_text("utf-8")
    try:
        with PerlSession(env=env) as perl:
            activate = row.name not in _BEFORE
            words = (storeid, row.name, told, dict(given), file, activate)
            result = perl.run(code, *words, timeout=3600)
    except PerlCrashed as err:
        raise StorageError(f"Perl failed: {' '.join(str(err).split())}") from None
    print(result.stderr, end="", file=sys.stderr)
    if result.error is not None:
        raise StorageError(" ".join(result.error.split()))
    value = result.value
    return None if value == [] and row.result == "status" else value


@contextmanager
def _descriptor(row: Method, file: str | None) -> Iterator[IO[bytes] | None]:
    """What goes along as ``fh``: the named file, or standard input or output for ``-``."""
    if not any(arg.type == "fd" for arg in row.args):
        yield None
        return
    if not file:
        raise StorageError(f"'fh' is missing: {usage(row)}")
    reading = "import" in row.name
    try:
        if file != "-":
            with open(file, "rb" if reading else "wb") as stream:
                yield stream
            return
        with tempfile.TemporaryFile() as spool:  # Perl can't open our pipes
            if reading:
                shutil.copyfileobj(sys.stdin.buffer, spool)
                spool.seek(0)
            yield spool
            if not reading:
                spool.seek(0)
                shutil.copyfileobj(spool, sys.stdout.buffer)
    except OSError as err:
        raise StorageError(f"{file}: {err.strerror}") from None
