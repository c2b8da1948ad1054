"""The program: `probe-norms`, its commands, and the one place where an exception becomes a line and
an exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from probe.cli.commands.analyze import analyze
from probe.cli.commands.attention import attention
from probe.cli.commands.capture import capture
from probe.cli.commands.compare import compare
from probe.cli.commands.compare_norms import compare_norms
from probe.cli.commands.convert import convert
from probe.cli.commands.evaluate import evaluate
from probe.cli.commands.export import export
from probe.cli.commands.figures import figures
from probe.cli.commands.fit import fit
from probe.cli.commands.fold import fold
from probe.cli.commands.layers import layers
from probe.cli.commands.plot import plot
from probe.cli.commands.report import report
from probe.cli.commands.track import track
from probe.cli.commands.train import train
from probe.cli.commands.verify import verify
from probe.cli.failure import PROGRAM, debugging, explain, one_line
from probe.cli.terminal import open_closed_streams, reader_left
from probe.errors import unknown
from probe.offline import hub_left_alone


class Group(TyperGroup):
    """The commands; an unknown one is told with the nearest names."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name=PROGRAM,
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(analyze)
for command in (
    capture,
    layers,
    attention,
    fit,
    plot,
    export,
    report,
    convert,
    fold,
    compare,
    track,
    verify,
    train,
    evaluate,
    compare_norms,
    figures,
):
    app.command(command.__name__.replace("_", "-"))(command)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line. Not typer's own runner, which would print the errors and leave by
    itself.
    """
    command = typer.main.get_command(app)
    try:
        with (
            hub_left_alone("--offline" in arguments),
            command.make_context(PROGRAM, list(arguments)) as context,
        ):
            command.invoke(context)
        code = 0
    except typer.Exit as leaving:
        code = leaving.exit_code
    sys.stdout.flush()  # a full disk shows here, not in the interpreter's last breath
    return code


def say_warning(message: Any, *_details: Any, **_more: Any) -> None:
    print(f"{PROGRAM}: warning: {one_line(str(message))}", file=sys.stderr)


@contextmanager
def ended_like_an_interrupt() -> Iterator[None]:
    """SIGTERM (`kill`, a batch system at its time limit) cleans up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    process = os.getpid()

    def interrupt(number: int, _frame: Any) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a process that was forked off
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the console script: 0 done, 1 the job failed, 2 wrong usage."""
    # torch's OpenMP threads spin for a while after each operation and would take the core that the
    # statistics need
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    open_closed_streams()
    with warnings.catch_warnings(), ended_like_an_interrupt():
        warnings.showwarning = say_warning
        try:
            return execute(sys.argv[1:] if argv is None else argv)
        except SystemExit:
            raise
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and reader_left():
                return 0
            message, code = explain(error)
            if debugging():
                traceback.print_exc()
            print(f"{PROGRAM}: error: {message}", file=sys.stderr)
            return code


if __name__ == "__main__":
    sys.exit(main())
