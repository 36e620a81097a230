# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run a few lines of Perl from a test and get back what PVE would have got.

:class:`PerlSession` keeps one ``perl -T`` with the storage modules loaded and evaluates snippets
in it: value and context, error, warnings, what was printed, and whether anything is tainted. With
``PVE_PERL5LIB`` (directories, colon-separated) set, the genuine PVE modules found there are used,
and the stand-in in this package only for what they lack; otherwise everything is the stand-in.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Literal

Context = Literal["scalar", "list", "void"]

_HERE = Path(__file__).resolve().parent
_CUSTOM_DIR = Path("/usr/share/perl5/PVE/Storage/Custom")


class PerlCrashed(Exception):
    """The Perl process died, could not be started, or took too long and was killed."""

    def __init__(self, reason: str, stderr: str) -> None:
        super().__init__(f"{reason}\n--- stderr ---\n{stderr}")
        self.reason = reason
        self.stderr = stderr


@dataclass(frozen=True)
class PerlResult:
    """Outcome of one snippet.

    ``value`` is a list in list context. Perl byte strings arrive as ``str`` if they are UTF-8,
    else as ``bytes``; results of comparisons as ``bool``; code references as ``{"__code__": 1}``,
    objects as ``{"__class__": name}``.
    ``error`` is ``$@`` as text or None; ``error_data`` has msg, code, errors of an exception
    object.
    ``warnings`` are those of this process; they are in ``stderr``, too.
    """

    value: Any
    error: str | None
    error_class: str | None
    error_data: dict[str, Any] | None
    warnings: list[str]
    stdout: str
    stderr: str
    tainted: bool

    def ok(self) -> Any:
        """Return the value; raise AssertionError with all there is to know if the snippet died."""
        if self.error is not None:
            raise AssertionError(
                f"Perl died: {self.error!r} (class {self.error_class}, {self.error_data})\n"
                f"--- warnings ---\n{''.join(self.warnings)}\n"
                f"--- stdout ---\n{self.stdout}\n--- stderr ---\n{self.stderr}"
            )
        return self.value


def is_genuine() -> bool:
    """Whether genuine PVE modules are to be used."""
    return bool(os.environ.get("PVE_PERL5LIB"))


def _shim_dir() -> Path:
    if given := os.environ.get("PVE_PYBRIDGE_PERL_DIR"):
        return Path(given)
    # a link to perl/ in a checkout, a copy of it in an installed package
    own = _HERE / "shim"
    return own if own.is_dir() else Path("/usr/share/perl5")


def perl_include_dirs() -> list[Path]:
    """Where Perl looks, in this order: genuine modules, the shim, the stand-in."""
    genuine = os.environ.get("PVE_PERL5LIB", "").split(":")
    return [*(Path(part) for part in genuine if part), _shim_dir(), _HERE / "standin"]


def _prepare_genuine() -> list[str]:
    """Make the genuine loader look into ``@INC``; see ``PVEPyBridgeTest::CustomDir``."""
    if not _CUSTOM_DIR.is_dir():
        try:
            _CUSTOM_DIR.mkdir(parents=True)
        except OSError as err:
            raise RuntimeError(
                f"{_CUSTOM_DIR} must exist, even empty, for genuine PVE modules to load any custom"
                f" storage plugin, and can't be created: {err}"
            ) from err
    return [f"-I{_HERE / 'genuine'}", "-MPVEPyBridgeTest::CustomDir"]


def perl_options(lib: Sequence[Path] = ()) -> list[str]:
    """What makes a Perl find PVE's modules, the shim, and plugins in *lib*, under -T, too."""
    # -T ignores PERL5LIB, so every directory is an option.
    options = [f"-I{directory}" for directory in (*lib, *perl_include_dirs())]
    return [*options, *_prepare_genuine()] if is_genuine() else options


def _command(lib: Sequence[Path], taint: bool) -> list[str]:
    return ["perl", *(["-T"] if taint else []), *perl_options(lib), str(_HERE / "inline.pl")]


def _encode(value: object) -> object:
    """Arguments for JSON. Perl has no booleans of its own: PVE's callers pass 1 and 0."""
    match value:
        case bool():
            return int(value)
        case None | int() | float() | str():
            return value
        case bytes():
            return {"__bytes__": value.hex()}
        case Mapping():
            return {str(key): _encode(item) for key, item in value.items()}
        case list() | tuple():
            return [_encode(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
    raise TypeError(f"can't pass {type(value).__name__} to Perl")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"__bytes__"}:
            return bytes.fromhex(value["__bytes__"])
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


class PerlSession:
    """A Perl process that runs snippets, one after the other.

    Args:
        lib: directories searched before those of :func:`perl_include_dirs`.
        env: additions to this process' environment.
        taint: run under ``-T``, as pvedaemon, vzdump and pct do.
        preload: Perl run before the first snippet; what it prints is in ``startup_stdout`` and
            ``startup_stderr``. If it dies, so does the process.

    Raises:
        PerlCrashed: from the constructor's start and from :meth:`run`, with STDERR so far.
    """

    def __init__(
        self,
        lib: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        taint: bool = True,
        preload: str = "use PVE::Storage;",
    ) -> None:
        with ExitStack() as stack:
            self._process = self._start(stack, _command(lib, taint), env or {})
            stack.callback(self._kill)
            self._resources = stack.pop_all()
        self._ended = False
        self._buffer = b""
        result = self.run(preload, context="void")
        if result.error is not None:
            self.close()
            raise PerlCrashed(f"preload failed: {result.error}", result.stderr)
        self.startup_stdout = result.stdout
        self.startup_stderr = result.stderr

    def _start(
        self, stack: ExitStack, command: Sequence[str], env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        def capture() -> IO[bytes]:
            # Appending, so that it can be emptied while Perl has it open; "a" alone only seeks.
            file = TemporaryFile("ab+", buffering=0)  # noqa: SIM115  # closed by the stack
            stack.enter_context(file)
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
            return file

        self._stdout, self._stderr = capture(), capture()
        request_in, self._request = os.pipe()
        stack.callback(os.close, self._request)
        self._reply, reply_out = os.pipe()
        stack.callback(os.close, self._reply)
        inherited = {key: val for key, val in os.environ.items() if not key.startswith("PERL5")}
        try:
            return subprocess.Popen(
                [*command, str(request_in), str(reply_out)],
                stdin=subprocess.DEVNULL,
                stdout=self._stdout,
                stderr=self._stderr,
                pass_fds=(request_in, reply_out),
                env={**inherited, **env},
                start_new_session=True,
            )
        finally:
            os.close(request_in)
            os.close(reply_out)

    @property
    def pid(self) -> int:
        """Process ID of the Perl process."""
        return self._process.pid

    def __enter__(self) -> PerlSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, and everything left in its session. May be called twice."""
        self._ended = True
        self._resources.close()

    def _kill(self) -> None:
        # Before wait() the process, even dead, keeps its ID: no other group can be hit.
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
            self._process.wait()

    def _exit_status(self) -> int:
        """Wait for the end and tell how it came, without reaping: see _kill."""
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None  # only WNOHANG gives None
        return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status

    def _printed(self, stream: IO[bytes]) -> str:
        stream.seek(0)
        return stream.read().decode(errors="backslashreplace")

    def _crash(self, reason: str) -> PerlCrashed:
        stderr = self._printed(self._stderr)
        self.close()
        return PerlCrashed(reason, stderr)

    def _read_reply(self, deadline: float) -> bytes | None:
        """Return one line, or None when the process is gone."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if select.select([self._reply], [], [], min(left, 0.5))[0]:
                if chunk := os.read(self._reply, 1 << 20):
                    self._buffer += chunk
                    continue
                time.sleep(0.01)
            # Not told by the end of the pipe alone: a child may keep it open, exec closes it.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def run(
        self,
        code: str,
        *args: object,
        context: Context = "scalar",
        taint_args: bool = False,
        timeout: float = 60,
    ) -> PerlResult:
        """Evaluate ``code`` in package main, strict and warnings on, with ``args`` in ``@ARGS``.

        Args:
            args: None, bool (as 1 or 0), int, float, str (characters), bytes, lists, mappings.
            context: what the last statement sees in ``wantarray``.
            taint_args: hand the arguments over tainted, as parameters of an API call are.
            timeout: seconds; then the process is killed.

        Raises:
            PerlCrashed: the process exited, was killed, or ran into the timeout.
        """
        if self._ended:
            raise PerlCrashed("the Perl process has ended before", "")
        os.ftruncate(self._stdout.fileno(), 0)
        os.ftruncate(self._stderr.fileno(), 0)
        request = {
            "code": code,
            "args": _encode(args),
            "context": context,
            "taint": taint_args,
        }
        try:
            self._send(json.dumps(request).encode() + b"\n")
            line = self._read_reply(time.monotonic() + timeout)
        except BrokenPipeError:
            line = None
        except TimeoutError:
            raise self._crash(f"no answer within {timeout} s, killed") from None
        if line is None:
            raise self._crash(f"perl exited with status {self._exit_status()}")
        reply = json.loads(line)
        return PerlResult(
            value=_decode(reply["value"]),
            error=_decode(reply.get("error")),
            error_class=reply.get("error_class"),
            error_data=_decode(reply.get("error_data")),
            warnings=_decode(reply["warnings"]),
            stdout=self._printed(self._stdout),
            stderr=self._printed(self._stderr),
            tainted=reply["tainted"],
        )

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._request, view) :]


def run_perl(
    code: str,
    *args: object,
    lib: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    taint: bool = True,
    preload: str = "use PVE::Storage;",
    context: Context = "scalar",
    taint_args: bool = False,
    timeout: float = 60,
) -> PerlResult:
    """Run one snippet in a Perl process of its own; see :class:`PerlSession`."""
    with PerlSession(lib, env, taint, preload) as session:
        return session.run(code, *args, context=context, taint_args=taint_args, timeout=timeout)
