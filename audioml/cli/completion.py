"""``audioml --print-completion SHELL``: verbs, options, files, and settings with their values."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

SHELLS: Final = ("bash", "zsh", "tcsh")

# Bash takes "=" for the end of a word, so that only what follows it is replaced.
_BASH: Final = """\
_audioml_settings() {
  local line="${COMP_LINE:0:COMP_POINT}"
  local word="${line##*[[:space:]]}"
  local values="%(values)s"
  if [[ "$word" == *=* && " $values" == *" ${word%%%%=*}="* ]]; then
    compgen -W "$values" -- "$word" | sed 's/^[^=]*=//'
  elif [[ "$word" == *=* ]]; then
    compgen -f -- "${word#*=}"
  else
    compgen -W "%(keys)s" -- "$word"
    compgen -f -X '!*.yaml' -- "$word"
    compgen -d -S / -- "$word"
  fi
}
"""
_BASH_END: Final = """
# no space after what goes on
_audioml() {
  _shtab_audioml
  [[ "${COMPREPLY[*]}" == *[=/] ]] && compopt -o nospace
  return 0
}
complete -o bashdefault -F _audioml audioml"""
_ZSH: Final = """\
_audioml_settings() {
  local -a keys=(%(keys)s) values=(%(values)s)
  if compset -P '*='; then
    compadd -- ${${(M)values:#$IPREFIX*}#$IPREFIX} || _files
  else
    compadd -S '' -- $keys
    _files -g '*.yaml'
  fi
}
"""


class PrintCompletion(argparse.Action):
    """Prints a shell's completion script and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the script for the shell ``values``."""
        print(completion_script(parser, str(values)))
        parser.exit()


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Write the script that completes a program's command line.

    Args:
        parser: Its parser, with ``verbs.completes`` said of the arguments.
        shell: One of ``SHELLS``.
    """
    import shtab

    from audioml.config import RunConfig

    keys, values = [], []
    for key, choices in _list_settings(RunConfig):
        keys.append(f"{key}=")
        values += [f"{key}={choice}" for choice in choices]
    words = {"keys": " ".join(keys), "values": " ".join(values)}
    preamble = {"bash": _BASH % words, "zsh": _ZSH % words}.get(shell, "")
    complete_settings = {"settings": "f" if shell == "tcsh" else "_audioml_settings"}
    script = shtab.complete(parser, shell, preamble=preamble, choice_functions=complete_settings)
    return script + (_BASH_END if shell == "bash" else "")


def _list_settings(section: Any, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """List a section's settings by their dotted keys, with their choices where those are few."""
    hints = get_type_hints(section)
    for item in fields(section):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint):
            yield from _list_settings(hint, f"{key}.")
        elif get_origin(hint) is Literal:
            yield key, get_args(hint)
        else:
            yield key, ("true", "false") if hint is bool else ()
