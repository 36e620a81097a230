# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905  a row is one line; word lists read best as words
"""The method table: every storage method PVE can call, declared once.

The manifest hands these rows to the Perl shim, the host dispatches by them, the documentation and
the tests are generated from them.  A row is one line of ``_ROWS``:

    name  since  timing  flags  absent  context  result  arguments

*flags*: ``l`` locked, ``r`` safe to repeat, ``s`` shared by identical callers.
*arguments* are in PVE's order.  ``name:type`` gives the wire type, ``?`` marks one that may be
undef, ``@N`` one that exists since APIVER N.  Types that cannot cross a socket say what the shim
does instead (contract section 3): ``cache`` becomes an operation id, ``fd`` travels by SCM_RIGHTS,
``logfunc`` stays in Perl and is fed by log frames, ``blockers`` and ``mutable`` maps come back in
the answer and are written into the caller's own structure, ``slurpy`` collects a trailing hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

TABLE_VERSION: Final = 1
"""Version of this table; rows and trailing arguments are only ever added."""

DEADLINES: Final[dict[str, float | None]] = {"pure": 5, "query": 60, "control": None, "long": None}
"""Timing class → seconds until the caller gets an answer; None: no limit, but signs of life."""

LIMITS: Final[dict[str, float]] = {"status": 3, "check_connection": 3, "activate_storage": 10}
"""Methods that pvestatd calls every ten seconds for one storage after the other (C-036, C-037)."""

Arguments = Mapping[Any, Any] | list[Any]
"""The arguments of a call as they came: by name, or in the order of the method's row."""

LOCAL_TYPES: Final = frozenset({"storeid", "scfg", "cache", "fd", "logfunc", "blockers", "code"})
"""Argument types that never appear in a call's argument map."""


class Arg(NamedTuple):
    """One argument: its name in Python and on the wire, its type, and since which APIVER."""

    name: str
    type: str
    optional: bool = False
    since: int = 1

    @property
    def on_wire(self) -> bool:
        """Whether a call carries the argument as such."""
        return self.type not in LOCAL_TYPES


class Method(NamedTuple):
    """One row: how a storage method is called, and what happens when a plugin lacks it."""

    name: str
    since: int
    timing: str
    """``pure`` | ``query`` | ``control`` | ``long``: which deadline the call gets."""
    locked: bool
    """PVE calls it under the storage lock (60 s alarm when the storage is shared)."""
    retry: bool
    """Safe to repeat when the answer was lost."""
    shared: bool
    """Identical calls at the same time are answered by one run."""
    absent: str
    """``inherit`` PVE's base method | ``refuse`` with a clear line | ``static`` rules or nothing."""
    context: str
    """``scalar``: one value | ``first``: list, its first element in scalar context | ``list``."""
    result: str
    args: tuple[Arg, ...]

    @property
    def wire_args(self) -> tuple[Arg, ...]:
        """The arguments that a call carries as such: with their names, or in this order."""
        return tuple(arg for arg in self.args if arg.on_wire and arg.name != "scfg")

    @property
    def limit(self) -> float | None:
        """Seconds until the caller gets an answer, whatever the plugin does; None: unlimited."""
        return LIMITS.get(self.name, DEADLINES[self.timing])


_ROWS: Final = """
# configuration hooks
on_add_hook                1 control -- inherit scalar hook      storeid scfg:mutable sensitive:slurpy
on_update_hook             1 control -- inherit scalar hook      storeid update:mutable sensitive:slurpy
on_update_hook_full       13 control -- inherit scalar hook      storeid scfg update:mutable delete:strlist? sensitive:map
on_delete_hook             1 control -- inherit scalar none      storeid scfg
# names and paths
parse_volname              1 pure    -r static  list   volname7  volname:str
path                       1 query   -r refuse  first  path      scfg volname:str storeid snapname:str?
filesystem_path            1 pure    -r inherit first  path      scfg volname:str snapname:str?
get_subdir                 1 pure    -r inherit scalar str       scfg vtype:str
get_vtype_subdirs          6 pure    -r inherit scalar map
get_formats               12 pure    -r static  scalar formats   scfg storeid
find_free_diskname         4 query   -r inherit scalar str       storeid scfg vmid:int format:str? add_suffix:bool?
config_aware_base_mkdir   11 control -r inherit scalar none      scfg path:str
# storage life cycle
check_connection           1 query   rs inherit scalar bool      storeid scfg
activate_storage           1 query   rs static  scalar none      storeid scfg cache
deactivate_storage         1 control -r inherit scalar none      storeid scfg cache
status                     1 query   rs refuse  list   status    storeid scfg cache
cluster_lock_storage       1 control -- inherit scalar any       storeid shared:bool? timeout:int? code:code
get_identity              14 query   -r inherit scalar str       scfg storeid
# volume life cycle
alloc_image                1 control l- refuse  scalar str       storeid scfg vmid:int format:str name:str? size:kib
clone_image                1 control l- refuse  scalar str       scfg storeid volname:str vmid:int snapname:str?
create_base                1 control l- refuse  scalar str       storeid scfg volname:str
free_image                 1 control l- refuse  scalar cleanup   storeid scfg volname:str is_base:bool? format:str?
free_image_cleanup         1 long    -- refuse  scalar none      storeid scfg data:map
list_images                1 query   -r refuse  scalar volumes   storeid scfg vmid:int? vollist:strlist? cache
list_volumes               3 query   -r inherit scalar volumes   storeid scfg vmid:int? content_types:strlist
volume_size_info           1 query   -r refuse  first  sizeinfo  scfg storeid volname:str timeout:number?
volume_resize              1 control -- refuse  scalar none      scfg storeid volname:str size:int running:bool? snapname:str?@15
rename_volume             10 control l- refuse  scalar volid     scfg storeid source_volname:str target_vmid:int target_volname:str?
volume_has_feature         1 pure    -r static  scalar bool      scfg feature:str storeid volname:str snapname:str? running:bool? opts:map?
get_import_metadata        8 query   -r inherit scalar map       scfg volname:str storeid
# snapshots
volume_snapshot            1 control -- refuse  scalar none      scfg storeid volname:str snapname:str
volume_snapshot_delete     1 long    -- refuse  scalar none      scfg storeid volname:str snapname:str running:bool?
volume_snapshot_rollback   1 long    -- refuse  scalar none      scfg storeid volname:str snapname:str
volume_rollback_is_possible 1 query  -r refuse  scalar true      scfg storeid volname:str snapname:str blockers
volume_snapshot_info      10 query   -r refuse  scalar snapinfo  scfg storeid volname:str
volume_snapshot_needs_fsfreeze 7 pure -r static scalar bool
rename_snapshot           12 control l- refuse  scalar none      scfg storeid volname:str source_snapname:str target_snapname:str
volume_qemu_snapshot_method 12 pure  -r static  scalar str       storeid scfg volname:str
storage_can_replicate      2 pure    -r static  scalar bool      scfg storeid format:str?
# activation
activate_volume            1 control -r static  scalar none      storeid scfg volname:str snapname:str? cache hints:hints?@13
deactivate_volume          1 control -r inherit scalar none      storeid scfg volname:str snapname:str? cache
map_volume                 2 control -r inherit scalar str       storeid scfg volname:str snapname:str? hints:hints?@13
unmap_volume               2 control -r inherit scalar true      storeid scfg volname:str snapname:str?
qemu_blockdev_options     12 query   -r inherit scalar blockdev  scfg storeid volname:str machine_version:str? options:map?
# attributes and backups
get_volume_attribute      10 query   -r inherit scalar attribute scfg storeid volname:str attribute:str
update_volume_attribute   10 control -- inherit scalar none      scfg storeid volname:str attribute:str value:text?
get_volume_notes           9 query   -r inherit scalar text      scfg storeid volname:str timeout:number?
update_volume_notes        9 control -- inherit scalar none      scfg storeid volname:str notes:text? timeout:number?
prune_backups              6 long    -- refuse  scalar prune     scfg storeid keep:intmap vmid:int? type:str? dryrun:bool? logfunc
new_backup_provider       11 control -- inherit scalar any       scfg storeid logfunc
# transfer
volume_export_formats      2 pure    -r static  list   strlist   scfg storeid volname:str snapshot:str? base_snapshot:str? with_snapshots:snapshots?
volume_import_formats      2 pure    -r static  list   strlist   scfg storeid volname:str snapshot:str? base_snapshot:str? with_snapshots:snapshots?
volume_export              2 long    -- refuse  scalar none      scfg storeid fh:fd volname:str format:str snapshot:str? base_snapshot:str? with_snapshots:snapshots?
volume_import              2 long    -- refuse  scalar volid     scfg storeid fh:fd volname:str format:str snapshot:str? base_snapshot:str? with_snapshots:snapshots? allow_rename:bool?
# answered by the shim itself
api                        1 pure    -r inherit scalar int
"""

LOCAL: Final = frozenset(
    {"filesystem_path", "get_subdir", "get_vtype_subdirs", "find_free_diskname", "api"}
    | {"config_aware_base_mkdir", "cluster_lock_storage", "new_backup_provider"}
    | {"get_volume_notes", "update_volume_notes"}
)
"""Rows that never cross the socket, whatever a plugin does: they carry no storage ID or a closure
(contract 2.3, V4), or are deprecated in favour of the attribute methods."""

NOT_STORAGE_METHODS: Final = {
    # SectionConfig level, contract 2.1: from the manifest, or inherited untouched
    "registration": """
        type plugindata properties options register check_config check_value decode_value
        encode_value parse_section_header format_section_header get_property_schema private
        createSchema updateSchema init lookup lookup_types parse_config write_config
        delete_from_config assert_if_modified has_isolated_properties
    """.split(),
    # plain functions of PVE::Storage::Plugin: called with the package name, never on a class
    "functions": """
        validate_prune_backups content_hash_to_string valid_content_types dirs_hash_to_string
        sensitive_properties storage_has_feature verify_path verify_server parse_lvm_name
        verify_portal_dns verify_content verify_format verify_options parse_volume_id
        verify_dir_override preallocation_cmd_opt preallocation_cmd_option is_hint_supported verify_hints parse_name_dir
        get_next_vm_diskname file_size_info write_common_header read_common_header default_format
    """.split(),
    "constants": "KNOWN_COMPRESSION_FORMATS COMPRESSOR_RE LOG_EXT NOTES_EXT".split(),
}
"""Every other sub a PVE base class may have, by the reason why the table has no row for it."""


@cache  # of 219 arguments 54 are different: a third of the time to parse them
def _parse_arg(spec: str) -> Arg:
    spec, _, since = spec.partition("@")
    optional = spec.endswith("?")
    name, _, type_ = spec.rstrip("?").partition(":")
    return Arg(name, type_ or name, optional, int(since or 1))


def _parse_row(line: str) -> Method:
    name, since, timing, flags, absent, context, result, *args = line.split()
    return Method(
        name=name,
        since=int(since),
        timing=timing,
        locked="l" in flags,
        retry="r" in flags,
        shared="s" in flags,
        absent=absent,
        context=context,
        result=result,
        args=tuple(_parse_arg(arg) for arg in args),
    )


METHODS: Final[dict[str, Method]] = {
    row.name: row
    for row in (
        _parse_row(line) for line in _ROWS.splitlines() if line and not line.startswith("#")
    )
}
"""Method name → row, in the table's order."""


def named(method: str, args: Arguments) -> Mapping[Any, Any]:
    """The arguments of a call by their names, however they came."""
    if not isinstance(args, list):
        return args
    row = METHODS.get(method)
    names = [arg.name for arg in row.wire_args] if row else map(str, range(len(args)))
    return {name: value for name, value in zip(names, args, strict=False) if value is not None}
