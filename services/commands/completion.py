"""`tetrad completion`: a script for bash, zsh or fish, generated from the parser itself.

The scripts are static: completing starts no Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Final

from services.commands.completion_commands import Command, Option, Value, commands


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell; KeyError for one that is not in SHELLS."""
    return SHELLS[shell]([*commands(parser)])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- bash ----------------------------------------------------------------------------------------

_BASH = """\
# Completion of `tetrad` for bash. Take it into a shell by
#   eval "$(tetrad completion bash)"

_tetrad() {
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command='' place=1 word i
    COMPREPLY=()
    # --option=value arrives in three words.
    if [[ $cur == '=' ]]; then
        cur=''
    elif [[ $before == '=' ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case "$command $word" in
%(steps)s
            *' '[!-]*) ((place++)) ;;
        esac
    done
    case "$command $before" in
%(values)s
    esac
    if [[ $cur == -* ]]; then
        case "$command" in
%(options)s
        esac
        return
    fi
    case "$command $place" in
%(arguments)s
    esac
}

_tetrad_value() {  # steps over an option's value
    ((i++))
    [[ ${COMP_WORDS[i]} != '=' ]] || ((i++))
}

_tetrad_words() {
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_tetrad_files() {
    if [[ $cur == '~'* ]]; then
        compopt -o default 2>/dev/null  # readline knows homes
        return
    fi
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
}

complete -F _tetrad tetrad
"""


def _bash(tree: list[Command]) -> str:
    steps, values, options, arguments = [], [], [], []
    for one in tree:
        at = " ".join(one.path)
        for name, _ in one.children:
            steps.append(f"{_quoted(f'{at} {name}')}) command={_quoted(f'{at} {name}'.strip())} ;;")
        for option in one.options:
            if option.value is not None:
                pattern = "|".join(_quoted(f"{at} {name}") for name in option.names)
                # The value of an option is no command, whatever it is called.
                steps.append(f"{pattern}) _tetrad_value ;;")
                values.append(f"{pattern}) {_bash_value(option.value)}; return ;;")
        names = " ".join(name for option in one.options for name in option.names)
        options.append(f"{_quoted(at)}) _tetrad_words {_quoted(names)} ;;")
        places = [(value, number, many) for number, (value, many) in enumerate(one.arguments, 1)]
        if one.children:
            words = tuple(name for name, _ in one.children)
            places = [(Value("COMMAND", words=words), 1, False)]
        for value, number, many in places:
            place = f"{_quoted(at + ' ')}{'*' if many else number}"
            arguments.append(f"{place}) {_bash_value(value)} ;;")
    return _BASH % {
        "steps": _indented(steps, 12),
        "values": _indented(values, 8),
        "options": _indented(options, 12),
        "arguments": _indented(arguments, 8),
    }


def _bash_value(value: Value) -> str:
    if value.words:
        return f"_tetrad_words {_quoted(' '.join(value.words))}"
    return "_tetrad_files" if value.file else ":"


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)


# --- zsh -----------------------------------------------------------------------------------------

_ZSH = """\
#compdef tetrad
# Completion of `tetrad` for zsh. Take it into a shell by
#   source <(tetrad completion zsh)
# or write it to a file called _tetrad in a folder of $fpath.

%(functions)s

if [[ $funcstack[1] == _tetrad ]]; then
    _tetrad "$@"
else
    compdef _tetrad tetrad
fi
"""


def _zsh(tree: list[Command]) -> str:
    return _ZSH % {"functions": "\n\n".join(map(_zsh_function, tree))}


def _zsh_function(one: Command) -> str:
    name = _zsh_name(one.path)
    specs = [_zsh_option(option) for option in one.options]
    if not one.children:
        for number, (value, many) in enumerate(one.arguments, start=1):
            place = "*" if many else str(number)
            specs.append(_quoted(f"{place}:{_zsh_text(value.name)}:{_zsh_action(value)}"))
        return _zsh_body(name, ["_arguments -s " + _zsh_specs(specs)])
    specs += ["'1:command:->command'", "'*::argument:->argument'"]
    listed = [_quoted(f"{child}:{_zsh_text(says)}") for child, says in one.children]
    lines = [
        "local context state state_descr line",
        "local -A opt_args",
        "_arguments -C " + _zsh_specs(specs),
        "case $state in",
        "    command)",
        "        local -a commands=(" + " ".join(listed) + ")",
        "        _describe command commands ;;",
        "    argument)",
        "        case $words[1] in",
        *(f"            {child}) {_zsh_name((*one.path, child))} ;;" for child, _ in one.children),
        "        esac ;;",
        "esac",
    ]
    return _zsh_body(name, lines)


def _zsh_body(name: str, lines: list[str]) -> str:
    return f"{name}() {{\n{_indented(lines, 4)}\n}}"


def _zsh_specs(specs: list[str]) -> str:
    return " \\\n        ".join(["", *specs]).lstrip()


def _zsh_name(path: tuple[str, ...]) -> str:
    return "_".join(["_tetrad", *path])


def _zsh_option(option: Option) -> str:
    others = "" if option.repeats else f"({' '.join(option.names)})"
    star = "*" if option.repeats else ""
    says = f"[{_zsh_text(option.says)}]"
    value = option.value
    after = f":{_zsh_text(value.name)}:{_zsh_action(value)}" if value else ""
    return " ".join(_quoted(f"{others}{star}{name}{says}{after}") for name in option.names)


def _zsh_action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    return "_files" if value.file else " "


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


# --- fish ----------------------------------------------------------------------------------------

_FISH = """\
# Completion of `tetrad` for fish. Take it into a shell by
#   tetrad completion fish | source
# or write it to ~/.config/fish/completions/tetrad.fish.

function __tetrad_at
    # Whether the words so far lead to this command, and to that argument of it.
    set -l command
    set -l place 1
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$command $word"
%(steps)s
            case '* -*'
            case '*'
                set place (math $place + 1)
        end
    end
    test "$command" = "$argv[1]"; and begin
        test -z "$argv[2]"; or test "$place" = "$argv[2]"
    end
end

complete -c tetrad -f
%(lines)s
"""


def _fish(tree: list[Command]) -> str:
    steps, lines = [], []
    for one in tree:
        at = " ".join(one.path)
        here = _fish_at(at)
        for child, says in one.children:
            to = _fish_text(f"{at} {child}".strip())
            steps += [f"case {_fish_text(f'{at} {child}')}", f"    set command {to}"]
            lines.append(f"{here} -a {child} -d {_fish_text(says)}")
        for option in one.options:
            if option.value is not None:
                named = " ".join(_fish_text(f"{at} {name}") for name in option.names)
                steps += [f"case {named}", "    set skip 1"]
            lines.append(f"{here} {_fish_option(option)}")
        for number, (value, many) in enumerate(one.arguments, start=1):
            there = here if many else _fish_at(at, str(number))
            if value.words:
                lines.append(f"{there} -a {_fish_text(' '.join(value.words))}")
            elif value.file:
                lines.append(f"{there} -F")
    return _FISH % {"steps": _indented(steps, 12), "lines": "\n".join(lines)}


def _fish_at(command: str, place: str = "") -> str:
    condition = f'__tetrad_at "{command}" {place}'.rstrip()
    return f"complete -c tetrad -n {_fish_text(condition)}"


def _fish_option(option: Option) -> str:
    flags = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    ]
    value = option.value
    if value is not None:
        flags.append("-r")
        if value.words:
            flags.append(f"-a {_fish_text(' '.join(value.words))}")
        elif value.file:
            flags.append("-F")
    return " ".join([*flags, f"-d {_fish_text(option.says)}"])


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[dict[str, Callable[[list[Command]], str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
