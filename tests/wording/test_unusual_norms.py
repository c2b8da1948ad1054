"""Which errors of an output are told, and which are rounding."""

from __future__ import annotations

import pytest

from probe.wording.unusual_norms import affine_errors, unusual, with_errors


def manifest(error: float | None, **model: str) -> dict:
    return {"model": model, "layers": [{"layer": "norm", "affine_error": error}]}


@pytest.mark.parametrize(
    ("error", "model", "told"),
    [
        (1e-5, {"dtype": "float32"}, False),
        (0.005, {"dtype": "float32"}, True),
        (0.005, {"dtype": "bfloat16"}, False),
        (0.005, {"dtype": "float32", "autocast": "float16"}, False),
        (0.05, {"dtype": "bfloat16"}, True),
        (None, {}, False),
    ],
)
def test_an_error_is_told_above_the_rounding_of_the_type_that_the_model_computes_in(
    error, model, told
):
    assert affine_errors(manifest(error, **model)) == ({"norm": error} if told else {})


def test_a_manifest_of_an_earlier_version_has_nothing_unusual():
    assert affine_errors({"layers": [{"layer": "norm"}]}) == {}
    assert list(unusual(with_errors([{"layer": "norm"}], {}), {}, 3)) == []


def test_many_modules_are_counted():
    (line,) = unusual([], {f"norm{n}": "Odd" for n in range(5)}, 2)
    assert "norm0 (Odd), norm1 (Odd) and 3 more: " in line
