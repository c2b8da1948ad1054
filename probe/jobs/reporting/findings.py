"""What was found in a run, in sentences: what its page says first, for a notebook or a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.formatting import records
from probe.jobs.fitting.fit import ensure_fitted
from probe.store.run import Run
from probe.wording.attention import attention_findings
from probe.wording.evidence import seen
from probe.wording.layer_findings import layer_findings
from probe.wording.notes import warnings_of
from probe.wording.phrases import Finding, Row


class Findings(Sequence[Finding]):
    """Sentences by topic; shows itself as a list in a notebook, as lines of text in a terminal."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = tuple(findings)

    def __len__(self) -> int:
        return len(self._findings)

    def __getitem__(self, index: Any) -> Any:
        return self._findings[index]

    def __str__(self) -> str:
        return "\n".join(f"{topic}: {text}" for topic, text in self)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n".join(f"- **{topic}.** {text}" for topic, text in self)


def findings(run: Run | str | Path) -> Findings:
    """What was found in a run, in sentences made from its tables.

        probe.findings("runs/vit_b")

    The first says how many images of how many photographs it rests on. A run without fits is fitted
    first. Raises UsageError where the folder holds no run.
    """
    run = ensure_fitted(run)
    rows = records(run.alphas()) if len(run.layers) else []
    heads = records(run.attention()) if run.has("attention") else []
    said = [Finding("Images", f"{seen(run.manifest)}.")]
    said += [Finding("Warning", text) for text in warnings_of(run.manifest)]
    return Findings([*said, *sentences(rows, heads, run.manifest.get("attention"))])


def sentences(
    rows: Sequence[Row], heads: Sequence[Row], attention: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Of the alpha table and of the table of heads; `attention`: what the manifest says of it."""
    if rows:
        yield from layer_findings(rows)
    yield from attention_findings(heads, (attention or {}).get("status") != "none")
