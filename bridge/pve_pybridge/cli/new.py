# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge new``: a small project that works, to be changed into a plugin of one's own.

The files are templates in ``templates/``: ``block`` or ``directory``, ``common``, with ``--deb``
also ``deb``.  ``%%{name}`` in a text, and MODULE and PACKAGE in a file name, are replaced.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import socket
import string
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Final

from ..errors import StorageError
from ..installed import TYPE
from ..manifest import PVE_TYPES

_TEMPLATES: Final = Path(__file__).resolve().parent.parent / "templates"
_SUFFIX: Final = ".tmpl"
_OPTIONS: Final = {
    "block": ("folder=data", "folder={dir}", "--{type}-folder /srv/{type}"),
    "directory": ("path=$PWD/data", "path={dir}", "--path /srv/{type}"),
}
"""Base → the options in ``--config`` of serve, of check, and in ``pvesm add`` of the README."""
_DEB_README: Final = """
Build a package that does so when it is installed:

    apt-get install devscripts dh-pve-pybridge
    dpkg-buildpackage -us -uc
"""


class _Template(string.Template):
    """Perl, make and shell are full of dollars."""

    delimiter = "%%"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare ``new``."""
    new = commands.add_parser(
        "new",
        help="make a plugin project that works",
        description="Makes a directory with a plugin, its tests, pyproject.toml and README.",
    )
    new.add_argument("name", help="the storage type: lower case letters, digits and dashes")
    base = new.add_mutually_exclusive_group()
    base.add_argument(
        "--block",
        dest="base",
        action="store_const",
        const="block",
        default="block",
        help="raw volumes that get attached to a node (default: what most arrays offer)",
    )
    base.add_argument(
        "--directory",
        dest="base",
        action="store_const",
        const="directory",
        help="anything that ends in a directory: file servers, cluster file systems",
    )
    new.add_argument("--deb", action="store_true", help="with a debian/ directory")
    new.set_defaults(run=_new)


def _new(args: argparse.Namespace) -> int:
    if not TYPE.fullmatch(args.name):
        raise StorageError(
            f"'{args.name}' can't be a storage type: lower case letters, digits and dashes can"
        )
    if args.name in PVE_TYPES:
        raise StorageError(f"type '{args.name}' is PVE's own; choose another name")
    target = Path(args.name)
    if target.exists():
        raise StorageError(f"{target} exists already; nothing was written")
    made = list(write(target, args.name, args.base, deb=args.deb))
    config, *_ = _OPTIONS[args.base]
    module = _module(args.name)
    print(f"made {target}/: {', '.join(made)}")
    print(f"cd {target} && pve-pybridge call demo status --plugin {module}.py --config {config}")
    return 0


def write(target: Path, name: str, base: str, *, deb: bool = False) -> Iterator[str]:
    """Write the project; yields the names of its files."""
    values = _values(name, base, deb=deb)
    for part in (base, "common", *(["deb"] if deb else [])):
        root = _TEMPLATES / part
        for template in sorted(root.rglob(f"*{_SUFFIX}")):
            path = str(template.relative_to(root)).removesuffix(_SUFFIX)
            for word in ("module", "package"):
                path = path.replace(word.upper(), values[word])
            path = ".gitignore" if path == "gitignore" else path
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            text = _Template(template.read_text("utf-8")).substitute(values)
            file.write_text(text.rstrip("\n") + "\n", "utf-8")
            file.chmod(0o755 if path == "debian/rules" else 0o644)
            yield path


def _values(name: str, base: str, *, deb: bool) -> Mapping[str, str]:
    config, check, pvesm = _OPTIONS[base]
    author, mail = _author()
    package = name if name.startswith("pve-") else f"pve-storage-{name}"
    return {
        "type": name,
        "module": _module(name),
        "cls": "".join(part.capitalize() for part in re.split(r"[-_]", name)),
        "package": package,
        "config": config,
        "check": check,
        "pvesm": pvesm.format(type=name),
        "author": author,
        "maintainer": f"{author} <{mail}>",
        "date": formatdate(localtime=True),
        "year": time.strftime("%Y"),
        "deb_readme": _DEB_README if deb else "",
    }


def _module(name: str) -> str:
    return name.replace("-", "_")


def _author() -> tuple[str, str]:
    """As Debian's tools find out who somebody is."""
    try:
        user = pwd.getpwuid(os.geteuid())
        login, full = user.pw_name, user.pw_gecos.split(",")[0]
    except KeyError:
        login, full = "nobody", ""
    name = os.environ.get("DEBFULLNAME") or full or login
    mail = (
        os.environ.get("DEBEMAIL") or os.environ.get("EMAIL") or f"{login}@{socket.gethostname()}"
    )
    return name, mail
