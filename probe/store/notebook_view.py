"""A run as a notebook shows it: an HTML table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd


def notebook_view(place: str, manifest: Mapping[str, Any], layers: pd.DataFrame) -> str:
    """Where it is, what it was made of, and its first layers."""
    facts = {
        "run": place,
        "model": _short(manifest.get("model")),
        "data": _short(manifest.get("data")),
        "seed": (manifest.get("plan") or {}).get("seed"),
    }
    known = {name: escape(str(fact)) for name, fact in facts.items() if fact is not None}
    head = "".join(f"<tr><th>{name}</th><td>{fact}</td></tr>" for name, fact in known.items())
    table = layers[["layer", "kind", "channels", "status", "count"]].to_html(
        max_rows=12, index=False
    )
    return f"<table>{head}</table>{table}"


def _short(fact: Any) -> Any:
    """What stands for a manifest entry in a table: of a mapping its name, kind or location."""
    if isinstance(fact, dict):
        return next((fact[key] for key in ("name", "location", "kind") if fact.get(key)), None)
    return fact
