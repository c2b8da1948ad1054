"""`probe-norms verify RUN`: are all files of a run there and unchanged?"""

from __future__ import annotations

import typer

from probe.cli import options as opt


def verify(run: opt.Run, json: opt.Json = False) -> None:
    """Check the files of a run against its manifest.

    Exit code 1 if a file is missing or changed.
    """
    from probe.cli.terminal import print_json, print_lines
    from probe.store import verify_run

    problems = verify_run(run)
    if json:
        print_json({"run": run, "sound": not problems, "problems": problems})
    else:
        print_lines([f"{run}: {problem}" for problem in problems] or [f"{run}: sound"])
    if problems:
        raise typer.Exit(1)
