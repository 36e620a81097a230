# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""B. Dispatch and wire: which calls and errors the plugin's own code decides."""

from __future__ import annotations

import signal
import time
from typing import Final

from ....client import Client
from ....errors import StorageError
from ..disk import is_there
from ..outcome import NotApplicable
from ..subject import SECOND, STOREID, Subject
from .loading import NOWHERE

CANCEL_SECONDS: Final = 5.0
# The child is PVE's process: it exports to somebody who doesn't read, and is ended meanwhile.
BLOCKED_EXPORT: Final = """
    use POSIX ();
    my ($volid, $format) = @ARGS;
    my $cfg = PVE::Storage::config();
    our ($READER, $WRITER);
    pipe($READER, $WRITER) or die "pipe: $!\n";
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        close($READER);
        eval { PVE::Storage::volume_export($cfg, $WRITER, $volid, $format, undef, undef, 0) };
        POSIX::_exit(1);
    }
    close($WRITER);
    select(undef, undef, undef, 0.7);
    kill('KILL', $pid);
    waitpid($pid, 0);
    return $? & 127;
"""


def two_storages(s: Subject) -> None:
    """C-014: the configuration of each call counts, not that of the first."""
    if s.second is None:
        raise NotApplicable("there is no second storage (--second key=value)")
    one, two = s.volume(4096), s.volume(8192, storeid=SECOND)
    paths = s.ask("path", one), s.ask("path", two)
    if paths[0] == paths[1]:
        s.fail(f"volumes of two storages have the same path '{paths[0]}'")
    sizes = [row["size"] for row in s.ask("vdisk_list", STOREID, s.vmid)[STOREID]]
    if len(sizes) != 1:
        s.fail(f"storage '{STOREID}' lists {len(sizes)} volumes, it has one")
    size = s.ask("volume_size_info", two, 5) if s.has("volume_size_info") else 8192 << 10
    if int(size) < 8192 << 10:
        s.fail(f"the volume of storage '{SECOND}' has the size of the other storage's volume")
    if two not in s.volids(storeid=SECOND):
        s.fail(f"'{two}' is not listed in its own storage")


def names_need_no_server(s: Subject) -> None:
    """C-015: parse_volname asks nobody."""
    volid = s.volume()
    here = s.parse(volid)
    session = s.node.session(**NOWHERE)
    answer = s.attempt("parse_volname", volid, context="list", session=session)
    session.close()
    if answer.error is not None or answer.value != here:
        s.fail("parse_volname answers something else without the server")


def shapes(s: Subject) -> None:
    """C-016: path and volume_size_info in both contexts."""
    volid = s.volume()
    path = s.ask("path", volid)
    listed = s.ask("path", volid, context="list")
    if not isinstance(path, str) or listed[0] != path:
        s.fail(f"path is {path!r} in scalar context and {listed!r} in list context")
    if not s.has("volume_size_info"):
        return
    wanted = s.parse(volid)[6]
    size = s.ask("volume_size_info", volid, 5)
    told = s.ask("volume_size_info", volid, 5, context="list")
    if len(told) != 5 or told[0] != size:
        s.fail("volume_size_info must give (size, format, used, parent, ctime)")
    _, format_, used, parent, ctime = told
    if format_ != wanted:
        s.fail(f"volume_size_info says format '{format_}', parse_volname '{wanted}'")
    if used is not None and not isinstance(used, int):
        s.fail(f"'used' must be bytes, not {used!r}")
    if parent is not None:
        s.fail(f"the volume has no base image, and its parent is {parent!r}")
    if ctime is not None and (not isinstance(ctime, int) or not 0 <= ctime <= time.time() + 86400):
        s.fail(f"'ctime' must be seconds since 1970, not {ctime!r}")


def format_lists(s: Subject) -> None:
    """C-017: lists without undef; none at all for what isn't supported."""
    volid = s.volume()
    for function in ("volume_export_formats", "volume_import_formats"):
        for snapshots in ((None, None, 0), (None, "check-base", 1)):
            found = s.ask(function, volid, *snapshots, context="list")
            if any(not isinstance(name, str) or not name for name in found):
                s.fail("a list of formats holds undef or nothing")


def status_is_four_integers(s: Subject) -> None:
    """C-018: (total, avail, used, active)."""
    found = s.method("status")
    if len(found) != 4 or not all(isinstance(item, int) for item in found):
        s.fail("status must give (total, avail, used, active)")


def nothing_is_tainted(s: Subject) -> None:
    """C-019: over all answers of the run."""
    for answer in s.history:
        if answer.tainted and answer.call.text.startswith(("PVE::Storage::", "$class->")):
            s.calls = [answer.call]
            s.fail("the answer is tainted")


def errors_are_one_line(s: Subject) -> None:
    """C-020: over all errors of the run."""
    bugs = [answer for answer in s.history if answer.internal]
    for answer in s.history:
        text = answer.error
        if text is None or answer in bugs:
            continue
        if not text.endswith("\n") or text.count("\n") > 1 or "Traceback" in text:
            s.calls = [answer.call]
            s.fail("the error is not one line")
    s.calls = [answer.call for answer in bugs[:5]]
    if bugs:
        s.remark(
            f"{len(bugs)} of the errors are bugs of the plugin: raise StorageError with a line"
            " that an administrator understands"
        )


def cancelled_calls_end(s: Subject) -> None:
    """C-023: the caller has gone, so the work ends."""
    s.need("volume_export")
    volid = s.volume(8192)
    formats = s.ask("volume_export_formats", volid, None, None, 0, context="list")
    if not formats:
        raise NotApplicable("volumes can't be exported")
    text = (
        f"volume_export of {volid} to a reader that doesn't read; after 0.7 s the caller is killed"
    )
    answer = s.run(text, BLOCKED_EXPORT, volid, formats[0], function="volume_export")
    if answer.value != signal.SIGKILL:
        raise NotApplicable("the export was over before its caller could be killed")
    try:
        _wait_until_idle(s)
    finally:
        s.run("close the reader", "our $READER; undef $READER; undef")


def _wait_until_idle(s: Subject) -> None:
    ends = time.monotonic() + CANCEL_SECONDS
    while True:
        # not by our own command line, which may hold secrets given to the suite
        command = "pve-pybridge check"
        socket = s.node.run / f"{s.type}.sock"
        with Client(s.type, socket, CANCEL_SECONDS, {"command": command}) as client:
            try:
                running = client.call("_stats")["running"]
            except StorageError as err:
                s.fail(f"the server doesn't say what it does: {err}")
        busy = [call["method"] for call in running if call["method"] != "_stats"]
        if not busy:
            return
        if time.monotonic() > ends:
            s.fail(
                f"{CANCEL_SECONDS:g} s after its caller was killed the plugin still runs {busy[0]}:"
                " run commands with storage.run, and call storage.checkpoint() in loops"
            )
        time.sleep(0.05)


def server_may_be_killed(s: Subject) -> None:
    """C-025: the next process of the plugin knows all that matters."""
    volid = s.volume()
    before = s.volids()
    always = is_there(s, volid)
    s.ask("activate_volumes", [volid])
    s.node.restart(signal.SIGKILL)
    after = s.volids()
    if after != before:
        s.fail(f"after the server was killed, {before} became {after}")
    if not is_there(s, volid):
        s.fail("the active volume went away with the plugin's server")
    s.ask("deactivate_volumes", [volid])
    if not always and is_there(s, volid):
        s.fail("a volume that was activated before the server was killed can't be deactivated")


def output_stays_off_stdout(s: Subject) -> None:
    """C-028: over all calls of the run."""
    for answer in s.history:
        if answer.stdout:
            s.calls = [answer.call]
            s.fail(f"the caller's STDOUT got {answer.stdout[:200]!r}")


def numbers_in_any_spelling(s: Subject) -> None:
    """C-029: strings, floats, fractions of a KiB."""
    s.need("alloc_image")
    if s.format == "subvol":
        raise NotApplicable("volumes of this storage have no size")
    for kib, least in (("2048", 2048 << 10), (2048.0, 2048 << 10), (2048.5, (2048 << 10) + 512)):
        volid = s.own(s.ask("vdisk_alloc", STOREID, str(s.vmid), s.format, None, kib))
        row = s.ask("vdisk_list", STOREID, s.vmid, [volid])[STOREID][0]
        size = row.get("size", row.get("approximate-size", least))
        if int(size) < least:
            s.fail(f"{kib!r} KiB became {size} bytes, which is less than {least}")


def unknown_keys_are_ignored(s: Subject) -> None:
    """C-033: newer hosts say more."""
    hints = {"check-unknown-hint": 1}
    volid = s.volume()
    volname = volid.partition(":")[2]
    for method in ("activate_volume", "map_volume"):
        if s.has(method):
            s.method(method, volname=volname, hints=hints)
    if s.has("qemu_blockdev_options"):
        s.ask("activate_volumes", [volid])
        options = {"hints": hints, "check-unknown-option": 1}
        s.method("qemu_blockdev_options", volname=volname, options=options)


CHECKS: Final = {
    "C-014": two_storages,
    "C-015": names_need_no_server,
    "C-016": shapes,
    "C-017": format_lists,
    "C-018": status_is_four_integers,
    "C-023": cancelled_calls_end,
    "C-025": server_may_be_killed,
    "C-029": numbers_in_any_spelling,
    "C-033": unknown_keys_are_ignored,
}
LAST: Final = {
    "C-019": nothing_is_tainted,
    "C-020": errors_are_one_line,
    "C-028": output_stays_off_stdout,
}
"""Statements about all calls of the run, so their turn is last."""
