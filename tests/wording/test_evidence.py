"""What is said of the images that a run rests on, and of what they do not decide."""

from __future__ import annotations

import pytest

from probe.wording.evidence import seen, seen_images, too_few_sources, undecided_layers
from probe.wording.notes import missed, on_batch_statistics, warnings_of
from support.fake_runs import alpha_row


def manifest(images: int, sources: int | None = None) -> dict:
    layers = [{"layer": "norm", "kind": "layer_norm", "affine": False}]
    return {"images_seen": images, "data": {"sources": sources}, "layers": layers}


def test_crops_of_one_photograph_are_one_source() -> None:
    assert seen(manifest(112, 14)) == "112 images of 14 photographs"
    assert seen(manifest(1, 1)) == "1 image"
    assert seen(manifest(64)) == "64 images"


def test_where_images_broke_there_are_no_more_sources_than_images() -> None:
    assert seen_images(manifest(3, 5)) == (3, 3)
    assert seen_images({"data": {"images": ["a", "b"]}}) == (2, 2)
    assert seen_images({}) == (0, 0)


@pytest.mark.parametrize(("sources", "few"), [(1, True), (7, True), (8, False), (128, False)])
def test_too_few_photographs_are_a_sentence_and_a_warning(sources: int, few: bool) -> None:
    said = too_few_sources(manifest(200, sources))
    assert bool(said) is few
    assert (said in warnings_of(manifest(200, sources))) is few
    if few:
        assert said.startswith(f"{sources} independent image")
        assert "no layer is called curved or linear under 8" in said


def test_a_run_without_norm_layers_is_not_warned_of_too_few_photographs() -> None:
    assert warnings_of(manifest(3) | {"layers": []}) == []


def test_undecided_layers_are_named_with_about_how_many_images_would_decide() -> None:
    rows = [
        alpha_row(0, "a", status="undetermined", sources_to_decide=90.0),
        alpha_row(1, "b", status="undetermined", sources_to_decide=2e6),
        alpha_row(2, "c", status="curved"),
    ]
    assert undecided_layers(rows) == (
        "not decided: 2 layers: a (about 90 images would decide), "
        "b (over 10,000 images would decide)"
    )
    assert undecided_layers(rows[2:]) == ""
    without = [alpha_row(0, "a", status="undetermined")]
    assert undecided_layers(without) == (
        "not decided: 1 layer (no intervals with so few independent images)"
    )


def test_batch_norms_on_batch_statistics_are_named() -> None:
    batch = {"layer": "bn1", "kind": "batch_norm", "affine": False}
    running = {"layer": "bn2", "kind": "batch_norm", "affine": True}
    assert on_batch_statistics({"layers": [batch, running]}) == ["bn1"]
    (line,) = missed({"layers": [batch, running]}, 5)
    assert line.endswith("bn1")
