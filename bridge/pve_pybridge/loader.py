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
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .errors import StorageError, one_line
from .plugin import StoragePlugin

logger = logging.getLogger(__name__)


class _Source(SourceFileLoader):
    """Always the file itself: bytecode tells its age by whole seconds, which misses quick edits."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile it, some milliseconds, and leave nothing beside it."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def load(source: str) -> type[StoragePlugin[Any]]:
    """The plugin class of *source*: a ``.py`` file or a dotted module name."""
    module = _import(source)
    plugins = [
        item
        for item in dict.fromkeys(v for v in vars(module).values() if inspect.isclass(v))
        if issubclass(item, StoragePlugin) and item.__module__ == module.__name__
    ]
    found = [item for item in plugins if "type" in vars(item)]
    if len(found) == 1:
        return found[0]
    raise StorageError(f"{source}: {_advice(plugins, found)}")


def _advice(plugins: list[type[StoragePlugin[Any]]], found: list[type[StoragePlugin[Any]]]) -> str:
    """Why the plugin classes of a module don't make one storage type."""
    if found:
        names = ", ".join(f"{cls.__name__} (type '{cls.type}')" for cls in found)
        return (
            f"holds the plugins {names}, but a server serves one type: keep one of them, and put "
            "the others into files of their own"
        )
    if plugins:
        name = plugins[-1].__name__
        return (
            f"class {name} has no type, by which PVE finds a storage's plugin: write "
            f'type = "{name.lower()}" in its first line'
        )
    return (
        "holds no plugin: write a class that inherits BlockPlugin, DirectoryPlugin or "
        "StoragePlugin and has a type"
    )


def _import(source: str) -> ModuleType:
    path = Path(source)
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        if not path.is_file():
            raise StorageError(f"{source}: no such file")
        name = f"pve_pybridge_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, source))
        assert spec is not None
        assert spec.loader is not None
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
