# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A debootstrapped Debian, cached: what a node is a copy of.

Our packages' dependencies are downloaded into it but not installed, so that installing ours with
apt needs no network, and is an installation from nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SUITES: Final = {"12": "bookworm", "13": "trixie"}
CACHE: Final = Path(os.environ.get("PVE_PYBRIDGE_NODE_CACHE", "/var/cache/pve-pybridge-node"))
MIRROR: Final = os.environ.get("PVE_PYBRIDGE_NODE_MIRROR")  # else debootstrap's own

BASE: Final = ("systemd", "systemd-sysv", "dbus", "perl", "ca-certificates")
# What a PVE node has anyway; in Debian 12 qemu-storage-daemon is in qemu-system-common.
INSTALLED: Final = ("python3", "qemu-utils", "qemu-system-common", "e2fsprogs", "kmod", "debconf")
DOWNLOADED: Final = (
    *("libdata-messagepack-perl", "libio-fdpass-perl", "libjson-perl", "python3-msgpack"),
)
# What PVE's own modules want, for PVE_PERL5LIB.
GENUINE: Final = (
    *("libanyevent-perl", "libauthen-pam-perl", "libclone-perl", "libconvert-asn1-perl"),
    *("libcrypt-openssl-bignum-perl", "libcrypt-openssl-random-perl", "libcrypt-openssl-rsa-perl"),
    *("libdevel-cycle-perl", "libfile-chdir-perl", "libfilesys-df-perl", "libhttp-date-perl"),
    *("libhttp-message-perl", "libio-socket-ssl-perl", "libjson-xs-perl", "liblinux-inotify2-perl"),
    *("libmime-base32-perl", "libnet-dbus-perl", "libnet-ip-perl", "libnet-ldap-perl"),
    *("libnet-ssleay-perl", "libnetaddr-ip-perl", "libposix-strptime-perl", "libsocket6-perl"),
    *("libstring-shellquote-perl", "libtimedate-perl", "libtry-tiny-perl", "liburi-perl"),
    *(
        "libwww-perl",
        "libxml-libxml-perl",
        "libxml-parser-perl",
        "libxml-twig-perl",
        "libfile-readbackwards-perl",
        "librrds-perl",
        "libuuid-perl",
        "libyaml-libyaml-perl",
    ),
)


def prepare(release: str, *, genuine: bool) -> Path:
    """The tree of a Debian release; made now if there is none for this list of packages."""
    installed = (*INSTALLED, *GENUINE) if genuine else INSTALLED
    wanted = hashlib.sha256(repr((BASE, installed, DOWNLOADED)).encode()).hexdigest()
    tree = CACHE / f"debian{release}{'-genuine' if genuine else ''}"
    stamp = CACHE / f"{tree.name}.stamp"
    if stamp.exists() and stamp.read_text() == wanted and tree.is_dir():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    _debootstrap(release, tree)
    _apt(tree, "update")
    install = ("install", "-y", "--no-install-recommends")
    _apt(tree, *install, *installed)
    _apt(tree, *install, "--download-only", *DOWNLOADED)
    stamp.write_text(wanted)
    return tree


def _debootstrap(release: str, tree: Path) -> None:
    include = f"--include={','.join(BASE)}"
    mirror = [MIRROR] if MIRROR else []
    _run("debootstrap", "--variant=minbase", include, SUITES[release], str(tree), *mirror)
    (tree / "etc/machine-id").write_text("")  # each node gets its own


def _apt(tree: Path, *args: str) -> None:
    _run("chroot", str(tree), "apt-get", "-q", *args)


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
