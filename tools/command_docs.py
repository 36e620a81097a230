# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Manual page and bash completion from the command line's own declarations, so said once.

Used by tools/generate_docs.py.  Only what argparse has been told is read, not the text it prints,
which differs between Python versions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from pve_pybridge import paths
from pve_pybridge.cli import command_line
from pve_pybridge.doctor.registry import CHECKS

ROOT = Path(__file__).resolve().parent.parent
SPDX = """\
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""


def documents() -> dict[Path, str]:
    """Both with the text they should have."""
    parser = command_line()
    template = (ROOT / "man/pve-pybridge.1.in").read_text("utf-8")
    return {
        ROOT / "man/pve-pybridge.1": manual(parser, template),
        ROOT / "completions/pve-pybridge": completion(parser),
    }


def commands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Command → (help, its parser)."""
    (found,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in found._choices_actions}
    return {name: (helps[name], one) for name, one in found.choices.items()}


def _own(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser, --help aside: everybody knows it."""
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            yield action


# --- manual page ---------------------------------------------------------------------------------


def manual(parser: argparse.ArgumentParser, template: str) -> str:
    """The page, its generated parts put into the template."""
    parts = {
        "SYNOPSIS": "\n.br\n".join(
            _usage(name, one) for name, (_, one) in commands(parser).items()
        ),
        "OPTIONS": "\n".join(map(_argument, _own(parser))),
        "COMMANDS": "\n".join(
            _command(name, text, one) for name, (text, one) in commands(parser).items()
        ),
        "ENVIRONMENT": "\n".join(map(_variable, paths.VARIABLES)),
    }
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


def _roff(text: str) -> str:
    """Plain text for a line of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return re.sub(r"^([.'])", r"\\&\1", text)


def _value(action: argparse.Action) -> str:
    """How the value of an argument is called; nothing for a switch."""
    if action.nargs == 0:
        return ""
    if action.choices and action.option_strings:
        return "|".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else None
    return metavar or action.dest.upper()


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    words = [f".B pve\\-pybridge {name}\n"]
    for action in _own(parser):
        value = f"\\fI{_roff(_value(action))}\\fR" if _value(action) else ""
        if action.option_strings:
            words.append(f"[\\fB{_roff(action.option_strings[-1])}\\fR {value}".rstrip() + "]")
        else:
            shown = {"?": f"[{value}]", "*": f"[{value} ...]"}
            words.append(shown.get(str(action.nargs), value))
    return words[0] + " ".join(words[1:])


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> str:
    lines = [f".SS {name}", _usage(name, parser), ".PP", _roff(_sentence(text))]
    if parser.description:
        lines.append(_roff(_sentence(parser.description)))
    return "\n".join([*lines, *map(_argument, _own(parser))]).replace("\n\n", "\n")


def _argument(action: argparse.Action) -> str:
    value = f" \\fI{_roff(_value(action))}\\fR" if _value(action) else ""
    shown = ", ".join(f"\\fB{_roff(option)}\\fR{value}" for option in action.option_strings)
    return f".TP\n{shown or value.strip()}\n{_roff(_sentence(action.help or ''))}".rstrip()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}".rstrip(".") + "." if text else ""


def _variable(name: str) -> str:
    default, meaning = paths.VARIABLES[name]
    told = f" Default: {default}." if default else ""
    return f".TP\n.B {name}\n{_roff(_sentence(meaning) + told)}"


# --- bash completion -----------------------------------------------------------------------------

_HEAD = f"""\
# shellcheck shell=bash
{SPDX}# Written by tools/generate_docs.py from the command line's own declarations.

_pve_pybridge() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} command='' words=''
    local manifests=${{PVE_PYBRIDGE_MANIFESTS:-/etc/pve-pybridge/plugins.d}} i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
"""
_MIDDLE = """\
        esac
    done
    COMPREPLY=()
    case $command:$prev in
"""
_TAIL = """\
    esac
    case $words in *@types*)
        words=${words/@types/$(cd "$manifests" 2>/dev/null && ls -- *.json 2>/dev/null)}
        words=${words//.json/}
        ;;
    esac
    if [[ $words == *@files* && $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames 2>/dev/null
    else
        mapfile -t COMPREPLY < <(compgen -W "${words/@files/}" -- "$cur")
    fi
}

complete -F _pve_pybridge pve-pybridge
"""


def completion(parser: argparse.ArgumentParser) -> str:
    """A bash function; types come from the manifests, files from the shell."""
    found = commands(parser)
    lines = [_HEAD, f"        {' | '.join(found)}) command=${{command:-${{COMP_WORDS[i]}}}} ;;\n"]
    lines.append(_MIDDLE)
    for name, one in [("", parser), *((name, one) for name, (_, one) in found.items())]:
        for action in _own(one):
            if action.option_strings and _value(action):
                for option in action.option_strings:
                    prefix = name or "*"
                    lines.append(f"        {prefix}:{option}) words='{_words(action)}' ;;\n")
    lines.append("        *) case $command in\n")
    for name, (_, one) in found.items():
        lines.append(f"            {name}) words='{' '.join(_offered(one))}' ;;\n")
    globals_ = [option for action in _own(parser) for option in action.option_strings]
    lines.append(f"            *) words='{' '.join([*found, *globals_])}' ;;\n")
    lines.append("            esac ;;\n")
    return "".join([*lines, _TAIL])


def _offered(parser: argparse.ArgumentParser) -> list[str]:
    """Options of a command, and what its other arguments may be."""
    options = [option for action in _own(parser) for option in action.option_strings]
    rest = [_words(action) for action in _own(parser) if not action.option_strings]
    return [*rest, *options]


def _words(action: argparse.Action) -> str:
    """What an argument may be: its choices, storage types, files, or nothing to offer."""
    if action.choices:
        return " ".join(map(str, action.choices))
    if action.dest == "type":
        return "@types"
    if action.dest == "check":
        return " ".join(CHECKS)
    files = isinstance(action.type, type) and issubclass(action.type, Path)
    return "@files" if files or action.dest in ("plugin", "interpreter", "location") else ""
