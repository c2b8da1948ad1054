"""Where a command writes: results to stdout, messages to stderr."""

from __future__ import annotations

import os
import select
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from probe.cli.views.grid import Column, Row, draw, fit_columns, no_room
from probe.formatting import json_text, visible

WIDTH = 120  # columns when stdout is no terminal and COLUMNS is not set


def open_closed_streams() -> None:
    """Output that the shell has closed (`>&-`) leads nowhere; Python has no stream then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  until the process ends


def reader_left() -> bool:
    """Has the reader of stdout gone (`| head`)? Then stdout leads nowhere from now on, so that no
    later flush complains.

    Asked of the pipe itself: a BrokenPipeError may also come from a worker process that died.
    """
    try:
        out = sys.stdout.fileno()
    except OSError:  # not a file, as under a test
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return gone


def print_json(document: Mapping[str, Any]) -> None:
    print(json_text(document))


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(visible(line, keep="\n"))


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    lines: Sequence[str],
    styles: Sequence[str] = (),
    also: str = "",
) -> None:
    """A table that fits the terminal, then what was left out of it (`also`: a file that holds all
    of it), then `lines`. `styles` has one style per row.
    """
    console = stdout_console()
    grid = fit_columns(columns, rows, console.width)
    # captured: rich itself would leave with exit code 1 when the reader has gone
    with console.capture() as drawn:
        console.print(draw(grid, styles))
    below = [*no_room(grid, also), *lines]
    said = [wrapped(line, console.width) if sys.stdout.isatty() else line for line in below]
    text = "\n".join(line.rstrip() for line in drawn.get().splitlines())
    if rows:
        print(text, end="\n\n")
    print_lines(said)


def wrapped(line: str, width: int) -> str:
    """`line` broken between words only: a path must survive copying."""
    return textwrap.fill(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def stdout_console() -> Any:
    from rich.console import Console

    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(width=WIDTH) if piped else Console()


def note(message: str, quiet: bool = False) -> None:
    """One line on stderr, for people."""
    if not quiet:
        print(visible(message), file=sys.stderr, flush=True)
