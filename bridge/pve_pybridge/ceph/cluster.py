# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""How a storage reaches its Ceph cluster: configuration, monitors, keyring, commands, refusals.

Without ``monhost`` it is the cluster that PVE manages, with PVE's own ceph.conf.  Otherwise the
keyring is the storage's secret, and a small ceph.conf beside it tells QEMU where that is: QEMU's
rbd driver takes no keyring, only a configuration file.  Keyrings and configuration files that an
administrator put where PVE documents them (``/etc/pve/priv/ceph``) are honoured and never changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import atomic, secrets
from ..errors import ParameterError, StorageError
from ..paths import etc_pve
from ..process import Completed
from ..storage import Storage

NOT_FOUND: Final = 2
BUSY: Final = 16
EXISTS: Final = 17
"""Exit codes of Ceph's commands: errno."""

MARK: Final = "# written by pve-pybridge; without this line it is left alone"
_KEYRING: Final = re.compile(r"\s*\[\S+\]\s*key\s*=\s*\S+")
_FSID: Final = re.compile(r"^\s*fsid\s*=\s*([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.M)
_PORTAL: Final = re.compile(
    r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:]+)|(?P<bare>.+?))(?::(?P<port>\d+))?"
)
_INTERNAL: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\S+ +[0-9a-f]+ +-?\d+ (?:librbd::?\S* )?(?:0x\S+ )?(?P<text>[^\n]*)\n?"
)
_NOISE: Final = re.compile(r"% complete\.\.\.|should_complete_error|encountered error")


class CephFailed(StorageError):
    """A Ceph command's refusal, with its exit code."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Cluster:
    """How commands and QEMU reach a cluster; the key is only ever named by its file (C-098)."""

    conf: str | None
    monitors: tuple[tuple[str, str | None], ...]
    user: str
    keyring: str | None

    @property
    def auth(self) -> str | None:
        """Without a keyring PVE takes a foreign cluster for an open one; ours says it itself."""
        if self.keyring:
            return "cephx"
        return "none" if self.monitors else None

    def mon_host(self, separator: str) -> str:
        """The monitors as Ceph writes them."""
        hosts = [(f"[{host}]" if ":" in host else host, port) for host, port in self.monitors]
        return separator.join(f"{host}:{port}" if port else host for host, port in hosts)

    def options(self) -> list[str]:
        """Command line options, the same for rbd, ceph and rados."""
        found = ["-c", self.conf] if self.conf else []
        found += ["-m", self.mon_host(",")] if self.monitors else []
        found += ["--auth_supported", self.auth] if self.auth else []
        found += ["-n", f"client.{self.user}"]
        return [*found, "--keyring", self.keyring] if self.keyring else found


def find(storeid: str, monhost: str | None, user: str) -> Cluster:
    """The cluster of a storage; writes the configuration file that QEMU will need."""
    priv = etc_pve() / "priv"
    keyrings = [secrets.path(storeid, "keyring"), priv / "ceph" / f"{storeid}.keyring"]
    if monhost is None and user == "admin":
        keyrings.append(priv / "ceph.client.admin.keyring")
    keyring = next((file for file in keyrings if file.exists()), None)
    if monhost is None:
        conf: Path | None = etc_pve() / "ceph.conf"
    else:
        conf = _conf(storeid)
        if keyring and not conf.exists():
            _write(conf, f"{MARK}\n[global]\n\tkeyring = {keyring}\n")
        conf = conf if conf.exists() else None
    return Cluster(
        conf=str(conf) if conf else None,
        monitors=parse_monitors(monhost or ""),
        user=user,
        keyring=str(keyring) if keyring else None,
    )


def parse_monitors(text: str) -> tuple[tuple[str, str | None], ...]:
    """Hosts and ports of PVE's ``monhost``: separated by comma, semicolon or space."""
    found = [_PORTAL.fullmatch(word) for word in re.split(r"[\s,;]+", text) if word]
    return tuple((m["v6"] or m["host"] or m["bare"], m["port"]) for m in found if m)


def store_keyring(storeid: str, text: str) -> None:
    """Check a keyring and store it so that Ceph can read it: the last line must have an end."""
    if not _KEYRING.match(text):
        raise ParameterError({"keyring": "is no Ceph keyring: [client.NAME] and key = … expected"})
    secrets.apply(storeid, {"keyring": text.strip() + "\n"})


def forget_conf(storeid: str) -> None:
    """Remove the configuration file, if it is ours."""
    conf = _conf(storeid)
    try:
        if conf.read_text("utf-8", "replace").startswith(MARK):
            conf.unlink()
    except FileNotFoundError:
        pass
    except OSError as err:
        raise StorageError(f"can't remove '{conf}': {err.strerror}") from None


def run(storage: Storage[Any], where: Cluster, command: Sequence[str], **options: Any) -> Completed:
    """Run ``rbd …``, ``ceph …`` or ``rados …``; CephFailed says why in one line.

    Their times are told in UTC.  *options* are those of ``storage.run``.
    """
    line = [command[0], *where.options(), *command[1:]]
    done = storage.run(line, check=False, env={"TZ": "UTC"}, **options)
    if done.status == 0:
        return done
    raise CephFailed(f"{_shown(command)}: {reason(done)}", done.status)


def reason(done: Completed) -> str:
    """What a command says of its failure, without time stamps, progress and internals.

    librbd's own first line tells more than the command's summary, so both are kept.  Its thread
    writes at any time, even into the middle of the command's line.
    """
    internal: list[str] = []

    def take(line: re.Match[str]) -> str:
        internal.append(line["text"])
        return ""

    rest = _INTERNAL.sub(take, done.stderr.decode("utf-8", "replace")).splitlines()
    inner = [line for line in internal if line.strip() and not _NOISE.search(line)][:1]
    outer = [line.removeprefix("rbd: ") for line in rest if not _NOISE.search(line)]
    told = dict.fromkeys(line.strip() for line in inner + outer if line.strip())
    return "; ".join(told) or f"exit code {done.status}"


def fsid(storage: Storage[Any], where: Cluster) -> str:
    """The cluster's ID: from PVE's own ceph.conf, else the cluster is asked."""
    if where.conf and not where.monitors:
        try:
            if found := _FSID.search(Path(where.conf).read_text("utf-8", "replace")):
                return found[1]
        except OSError as err:
            raise StorageError(f"can't read '{where.conf}': {err.strerror}") from None
    return run(storage, where, ["ceph", "fsid"]).text.strip()


def _shown(command: Sequence[str]) -> str:
    """What was tried, without options (all the long ones have a value)."""
    before = ["", *command]
    told = [word for word, last in zip(command, before, strict=False) if last[:2] != "--"]
    return " ".join(word for word in told if not word.startswith("-"))


def _conf(storeid: str) -> Path:
    return etc_pve() / "priv" / "ceph" / f"{storeid}.conf"


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(file, text)
    except OSError as err:
        raise StorageError(f"can't write '{file}': {err.strerror}") from None
