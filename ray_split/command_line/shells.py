"""The scripts by which bash, zsh and fish complete `ray-split`: pure text of what there is to complete."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

PROG = "ray-split"
FIRST = ("--help", "--version", "--completion")
WIDTH = 60  # of a description, beside a flag


class Flag(NamedTuple):
    """A flag, the values that are known of it (none: anything, a file say), whether one follows, and what it is for."""

    name: str
    values: tuple[str, ...]
    follows: str  # always, sometimes, never
    about: str


class Command(NamedTuple):
    """A command, its own flags, and whether it takes words beside them: runs, folders."""

    name: str
    about: str
    flags: tuple[Flag, ...]
    takes_words: bool


BASH = """\
# Completion of ray-split for bash: ~/.local/share/bash-completion/completions/ray-split, or source it.
_ray_split() {
  local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} flags= values= rest=
  [[ $word == = ]] && word=  # bash takes --flag=value for three words
  [[ $flag == = ]] && flag=${COMP_WORDS[COMP_CWORD-2]}
@CASES@
  [[ $flag != --* && -n $rest ]] && values=$flags
  [[ $word == -* ]] && values=$flags
  (( COMP_CWORD == 1 )) && values='@FIRST@'
  COMPREPLY=($(compgen -W "$values" -- "$word"))
}
complete -o default -F _ray_split ray-split
"""

ZSH = """\
#compdef ray-split
# Completion of ray-split for zsh: _ray-split in a folder of $fpath, such as ~/.zfunc.
_ray-split() {
  local word=${words[CURRENT]} flag=${words[CURRENT-1]} command=${words[2]} flags= values= rest=
  if [[ $word == --*=* ]]; then flag=${word%%=*}; word=${word#*=}; compset -P '*='; fi
@CASES@
  [[ $flag != --* && -n $rest ]] && values=$flags
  [[ $word == -* ]] && values=$flags
  (( CURRENT == 2 )) && values='@FIRST@'
  if [[ -n $values ]]; then compadd -- ${=values}; else _files; fi
}
if [[ $funcstack[1] == _ray-split ]]; then _ray-split "$@"; else compdef _ray-split ray-split; fi
"""


def _filled(template: str, commands: Sequence[Command], with_settings: Sequence[str], settings: Sequence[Flag]) -> str:
    first = " ".join([*(command.name for command in commands), *FIRST])
    cases = ["  case $command in", *_case("|".join(with_settings), settings, rest=True), "  esac", "  case $command in"]
    for command in commands:
        cases += _case(command.name, command.flags, rest=not command.takes_words)
    return template.replace("@CASES@", "\n".join([*cases, "  esac"])).replace("@FIRST@", first)


def _case(names: str, flags: Sequence[Flag], rest: bool) -> Iterator[str]:
    """`flags` of a command, and `values` of the flag before the cursor. bash and zsh read it alike."""
    yield f"    {names})"
    yield f"      flags+=' {' '.join(flag.name for flag in flags)}' rest={'yes' if rest else ''}"
    yield "      case $flag in"
    yield from (f"        {flag.name}) values='{' '.join(flag.values)}';;" for flag in flags if flag.values)
    yield "      esac;;"


def _bash(commands: Sequence[Command], with_settings: Sequence[str], settings: Sequence[Flag]) -> str:
    return _filled(BASH, commands, with_settings, settings)


def _zsh(commands: Sequence[Command], with_settings: Sequence[str], settings: Sequence[Flag]) -> str:
    return _filled(ZSH, commands, with_settings, settings)


def _fish(commands: Sequence[Command], with_settings: Sequence[str], settings: Sequence[Flag]) -> str:
    lines = ["# Completion of ray-split for fish: ~/.config/fish/completions/ray-split.fish."]
    lines += [f"complete -c {PROG} -n __fish_use_subcommand -f -l {name.removeprefix('--')}" for name in FIRST]
    for command in commands:
        lines.append(f"complete -c {PROG} -n __fish_use_subcommand -f -a {command.name} -d {_quoted(command.about)}")
    lines += [_fish_flag(with_settings, flag) for flag in settings]
    lines += [_fish_flag([command.name], flag) for command in commands for flag in command.flags]
    return "\n".join(lines) + "\n"


def _fish_flag(commands: Sequence[str], flag: Flag) -> str:
    seen = _quoted(f"__fish_seen_subcommand_from {' '.join(commands)}")
    kind = {"always": " -x" if flag.values else " -r", "sometimes": " -f", "never": " -f"}[flag.follows]
    values = f" -a {_quoted(' '.join(flag.values))}" if flag.values else ""
    about = _quoted(textwrap.shorten(flag.about, WIDTH, placeholder=" ..."))
    return f"complete -c {PROG} -n {seen} -l {flag.name.removeprefix('--')}{kind}{values} -d {about}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: dict[str, Callable[[Sequence[Command], Sequence[str], Sequence[Flag]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""(commands with their own flags, those that take the settings too, the flags of these) as a script."""
