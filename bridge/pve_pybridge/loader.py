# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Find the plugin class in a Python file or module; say in one line why it can't be used."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import StorageError, one_line
from .plugin import StoragePlugin

logger = logging.getLogger(__name__)


def load(source: str) -> type[StoragePlugin[Any]]:
    """The plugin class of *source*: a ``.py`` file or a dotted module name."""
    module = _import(source)
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and issubclass(item, StoragePlugin)
        and item.__module__ == module.__name__
        and "type" in vars(item)
    ]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise StorageError(
            f"{source}: needs exactly one subclass of StoragePlugin with a 'type', found {names}"
        )
    return found[0]


def _import(source: str) -> ModuleType:
    path = Path(source)
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        name = f"pve_pybridge_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise StorageError(f"{source}: no such file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except StorageError:
        raise
    except BaseException as err:  # an author's module may even call sys.exit()
        logger.debug("import of %s failed", source, exc_info=True)
        raise StorageError(f"{source}: {_where(err, source)}") from err


def _where(err: BaseException, source: str) -> str:
    """Error with the line of the plugin file it comes from."""
    frames = [f for f in traceback.extract_tb(err.__traceback__) if f.filename == source]
    if isinstance(err, SyntaxError):
        return f"syntax error in line {err.lineno}: {err.msg}"
    at = f" (line {frames[-1].lineno})" if frames else ""
    what = f": {err}" if str(err) else ""
    return one_line(f"{type(err).__name__}{what}{at}")
