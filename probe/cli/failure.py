"""From an exception to one line on stderr and an exit code: 0 done, 1 the job failed, 2 wrong
usage.
"""

from __future__ import annotations

import errno
import os
import re
from difflib import get_close_matches
from typing import Any

import typer

from probe.cli.options import Refused
from probe.errors import ProbeError
from probe.formatting import visible

PROGRAM = "probe-norms"
DEBUG = "PROBE_DEBUG"
LONGEST = 400  # characters of a message of foreign code
LONGEST_OF_ALL = 2000  # characters of any message: no own one is longer, an argument may be
_LONG_WORD = re.compile(r"\S{2001,}")  # an argument that was pasted, not typed

# typer's own base of usage errors: click's in older versions, a copy of click inside typer in newer
# ones
CLICK_USAGE: Any = typer.BadParameter.__mro__[1]
CLICK_ERROR: Any = CLICK_USAGE.__mro__[1]

FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
)
SHARED_MEMORY_WORDS = (
    "shared memory",
    "unable to write to file </torch_",
    "unable to open shared memory",
)


def one_line(text: str, longest: int | None = None) -> str:
    line = visible(" ".join(_LONG_WORD.sub(_shortened, text).split()))
    if len(line) > LONGEST_OF_ALL:  # the advice is at the end
        line = f"{line[: LONGEST_OF_ALL - 300]} ... {line[-290:]}"
    return f"{line[: longest - 3]}..." if longest and len(line) > longest else line


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:60]}...{word[0][-60:]}"


def explain(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for anything that a job raised; notes say what is kept of it."""
    line, code = _explained(error)
    kept = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, KeyboardInterrupt):
        kept = kept or "; nothing unfinished is kept"
    return one_line(f"{line}{kept}") if kept else line, code


def _explained(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ProbeError):
        return one_line(str(error)), error.exit_code
    if isinstance(error, CLICK_ERROR):
        return one_line(usage(error)), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 1
    if out_of_memory(error):
        return (
            "out of memory: give a smaller --batch-size, or --device cpu for a model that does "
            "not fit the GPU",
            1,
        )
    if isinstance(error, RuntimeError) and any(word in str(error) for word in SHARED_MEMORY_WORDS):
        return (
            "the worker processes ran out of shared memory: give --workers 0, or a smaller "
            "--batch-size",
            1,
        )
    if isinstance(error, OSError) and error.errno is not None:
        return disk(error), 1
    return (
        f"unexpected {type(error).__name__}: {one_line(str(error), LONGEST)} ({DEBUG}=1 shows the "
        "traceback)",
        1,
    )


def out_of_memory(error: BaseException) -> bool:
    """Told by name, since torch may not even be imported: torch.OutOfMemoryError, or a RuntimeError
    of an allocator.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in MEMORY_WORDS
    )


def disk(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL_DISK:
        return f"{place}the disk is full: free some space or choose another place with --out"
    if isinstance(error, PermissionError):
        return f"{place}no permission: choose a place that you may read and write"
    return f"{place}{error.strerror or one_line(str(error), LONGEST)}"


def usage(error: Any) -> str:
    """typer's usage errors, told as: what was given, what is accepted, what to do."""
    if isinstance(error, Refused):
        return str(error.message)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else PROGRAM
    help_line = f"see {command} --help"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return f"{unknown_option(error.option_name, context)}; {help_line}"
    if kind == "MissingParameter" and getattr(error, "param", None) is not None:
        return f"{missing(error.param)}; {help_line}"
    if kind == "BadOptionUsage" and "requires" in error.message:
        return f"{error.option_name} needs a value after it; {help_line}"
    return f"{error.format_message().rstrip('.')}; {help_line}"


def unknown_option(given: str, context: Any) -> str:
    known = options_of(context) if context else []
    # compared without the dashes, which would make all options alike
    close = get_close_matches(given.lstrip("-"), [name[2:] for name in known], n=2)
    accepted = (
        f"did you mean {', '.join(f'--{name}' for name in close)}?"
        if close
        else f"accepted: {', '.join(known)}"
    )
    return f"option {given} is unknown ({accepted})"


def options_of(context: Any) -> list[str]:
    """The long option names of the context's command, in the order of its help."""
    return [
        name
        for param in context.command.get_params(context)
        for name in param.opts
        if name.startswith("--")
    ]


def missing(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"{param.metavar or param.name} is missing"
    return f"{param.opts[0]} {param.metavar or ''}".rstrip() + " is missing"


def debugging() -> bool:
    return os.environ.get(DEBUG, "") not in ("", "0")
