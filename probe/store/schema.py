"""Names, columns and types of the files of a run: the one place where they are spelled.

The layer is a column and never a folder name: hive paths would turn layers named `0`, `1` into
numbers.
"""

from __future__ import annotations

import re

import pyarrow as pa

from probe.records import Status

FORMAT = "probe-run"
# a reader refuses runs of a higher version; 2: all files are listed, and the manifest is sealed
VERSION = 2
MANIFEST = "manifest.json"
SAMPLES = "samples"
FIGURES = "figures"
# tables that a capture writes; the others come later
CAPTURED = ("moments", "profile", "rows")
# a table that a capture writes where it was asked to; the only one of a run whose job it is
ATTENTION = "attention"
# names and groups of the images, where they are too many for the manifest
IMAGES = "images"
LISTED = 10_000  # images that a manifest lists

# files that jobs after the capture put into a run, beside the figures
RESULTS = frozenset(
    ("fits.parquet", "channel_fits.parquet", "report.html")
    + ("alpha.csv", "alpha.json", "alpha.safetensors")
)

# Everything that this package puts into a run. Overwriting refuses to delete a run that holds
# anything else.
CONTENTS = (
    frozenset((MANIFEST, SAMPLES, FIGURES))
    | RESULTS
    | {f"{name}.parquet" for name in (*CAPTURED, ATTENTION, IMAGES)}
)

VALUES = ("input", "normalized", "output")

# no column holds nulls: to say so of each value would take a third of the time of writing
SAMPLE_SCHEMA = pa.schema(
    pa.field(name, kind, nullable=False)
    for name, kind in (
        ("layer", pa.dictionary(pa.int32(), pa.string())),
        *((name, pa.int32()) for name in ("image", "position", "channel")),
        *((name, pa.float32()) for name in VALUES),
        ("stratum", pa.dictionary(pa.int8(), pa.string())),
    )
)


def _floats(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.float64()) for name in names]


def _strings(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


def _statistics(side: str) -> list[tuple[str, pa.DataType]]:
    return _floats(*(f"{name}_{side}" for name in ("mean", "var", "min", "max")))


TABLES: dict[str, pa.Schema] = {
    "moments": pa.schema(
        [("layer", pa.string()), ("channel", pa.int32()), ("count", pa.int64())]
        + _statistics("input")
        + _statistics("output")
        + _floats("weight", "bias", "slope", "offset")
    ),
    "profile": pa.schema(
        [
            *_strings("layer", "tokens"),
            ("group", pa.int16()),
            ("bin", pa.int16()),
            ("count", pa.int64()),
        ]
        + _floats("sum_input", "sum_normalized", "sum_normalized_sq", "sum_input_sq", "sum_product")
    ),
    "rows": pa.schema(
        [
            ("layer", pa.string()),
            ("image", pa.int32()),
            ("position", pa.int32()),
            *_floats("mean", "sigma"),
        ]
    ),
    IMAGES: pa.schema([("image", pa.int32()), ("name", pa.string()), ("group", pa.int16())]),
    "fits": pa.schema(
        [
            ("layer", pa.string()),
            ("depth", pa.int32()),
            *_strings("family", "scope", "weighting", "tokens"),
        ]
        + _floats(
            "alpha",
            "shift",
            "gamma",
            "beta",
            "slope",
            "r2",
            "r2_ceiling",
            "linear_r2",
            "gain",
            "gain_low",
            "gain_high",
        )
        + _floats("rmse", "alpha_low", "alpha_high")
        + [
            ("status", pa.string()),
            ("best", pa.bool_()),
            ("tied", pa.bool_()),
            ("groups", pa.int32()),
            ("count", pa.int64()),
        ]
    ),
    "channel_fits": pa.schema(
        [("layer", pa.string()), ("channel", pa.int32())]
        + _floats("alpha", "gamma", "beta", "r2", "slope", "offset", "extremes", "max_abs_input")
        + [("massive", pa.bool_())]
    ),
    ATTENTION: pa.schema(
        [("layer", pa.string()), ("head", pa.int32())]
        + _floats(
            "distance_px",
            "distance_px_raw",
            "distance_patches",
            "distance_px_std",
            "prefix_mass",
            "entropy",
        )
        + [
            ("token_stride", pa.float64()),
            ("grid", pa.string()),
            ("uniform_px", pa.float64()),
            ("images", pa.int64()),
        ]
        + [(name, pa.int32()) for name in ("depth", "windows", "prefix_tokens")]
    ),
}

# Which command makes a table that a finished capture does not hold.
MADE_BY = {"fits": "fit", "channel_fits": "fit", "alphas": "export"}


def missing_columns(name: str, found: pa.Schema) -> str:
    """What to say of a stored table that lacks columns; empty if it has all. Such runs come from
    older versions.
    """
    missing = [column for column in TABLES[name].names if column not in found.names]
    if not missing:
        return ""
    again = (
        f"`probe-norms {MADE_BY[name]}` makes it anew"
        if name in MADE_BY
        else "capture the run again"
    )
    return (
        f"no column {', '.join(missing)}, which this version needs (an older one wrote it): {again}"
    )


# The records of manifest["layers"]: column -> value that stands for a missing one.
LAYERS: dict[str, object] = {
    "layer": "",
    "depth": 0,
    "kind": "",
    "channels": 0,
    "eps": float("nan"),
    "affine": False,
    "own_alpha": float("nan"),  # of a DyT or Derf layer
    "positions": 0,  # per image
    "prefix_tokens": 0,
    "status": Status.CAPTURED.value,  # or not_called, not_finite
    "not_finite": 0,
    "count": 0,  # elements
    "inverse_sigma_mean": float("nan"),
    "sigma_mean": float("nan"),
    "sigma_cv": float("nan"),
}

# One row per layer; how each column is meant: docs/columns.md.
ALPHAS = (
    *("layer", "depth", "kind", "channels"),
    *("alpha", "alpha_low", "alpha_high", "established"),
    *("alpha_channel", "alpha_channel_low", "alpha_channel_high", "own_alpha"),
    *("gamma", "beta", "slope", "r2", "linear_r2", "r2_ceiling"),
    *("gain", "gain_low", "gain_high", "channel_gain", "status"),
    *("best_family", "tied", "images", "sources", "sources_to_decide"),
    *("input_std", "inverse_std", "mean_inverse_sigma", "sigma_cv"),
    *("beyond_linear", "saturation", "max_abs_input", "massive_channels", "count"),
    *("slope_min", "slope_median", "slope_max", "slope_cv", "mean_std_spread"),
)
ALPHA_STRINGS = ("layer", "kind", "status", "best_family", "tied")

_LONGEST = 100  # characters of a layer name that go into a file name


def sample_name(depth: int, layer: str) -> str:
    """File name of a layer's samples: `NNN-<escaped name>.parquet`.

    The depth makes it unique, whatever the escaping, the cut or a case-insensitive file system
    folds together.
    """
    return f"{depth:03d}-{re.sub(r'[^A-Za-z0-9._-]', '_', layer)[:_LONGEST]}.parquet"
