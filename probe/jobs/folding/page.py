"""The page of a folded model: FILE.html beside it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from probe.formatting import json_text
from probe.html import Finding, Page, RunPart, render
from probe.jobs.page_tables import described_table, speed_table
from probe.wording.columns import FOLD
from probe.wording.folding import deviation, folded, times
from probe.wording.notes import warnings_of
from probe.wording.phrases import sentences
from probe.wording.speed import conclusion


def fold_page(fold: Mapping[str, Any]) -> bytes:
    """HTML of a fold, as FoldedModel.as_dict gives it."""
    heading = f"{fold['model']['name']}, folded"
    speeds = fold.get("speed") or []
    findings = {
        "Folded": sentences(list(folded(fold))[1:]),
        "Exactness": sentences([deviation(fold)]),
        "Time": sentences([times(fold)]),
        "Speed": sentences([conclusion([SimpleNamespace(**row) for row in speeds])])
        if speeds
        else "",
    }
    part = RunPart(
        "fold",
        heading,
        f"{next(folded(fold))}.",
        warnings=tuple(warnings_of(fold)),
        findings=tuple(Finding(topic, text) for topic, text in findings.items() if text),
        layers=described_table("fold-layers", "Affine maps", FOLD, fold["layers"], noun="maps"),
        speed=speed_table("fold-speed", speeds) if speeds else None,
        manifest=json_text({name: fold[name] for name in fold if name != "layers"}),
        kicker="Affine maps moved into the linear layers around them",
        layers_title="Maps",
        about_title="About the fold",
    )
    return render(Page(heading, (part,))).encode()
