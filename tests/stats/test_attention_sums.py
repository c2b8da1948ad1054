"""Streaming attention statistics: masks, causality, mass on the class token, chunks, precision,
merging.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.stats import attention_sums as summing
from probe.stats.attention import (
    Geometry,
    HeadSums,
    patch_centres,
    patch_distances,
)
from probe.stats.attention_scores import GivenScores, ProductScores, probabilities
from probe.stats.attention_sums import chunks

GRID = (3, 4)
PATCHES = 12


def attention_sums(*call: object) -> np.ndarray:
    return summing.attention_sums(*call).numpy()


@pytest.fixture(autouse=True, params=["kernel", "torch"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised here holds for both."""
    if request.param == "torch":
        monkeypatch.setattr(summing, "compiled_for", lambda scores: False)


def geometry(
    prefix: int = 1, grid: tuple[int, int] = GRID, stride: tuple[float, float] = (16.0, 16.0)
) -> Geometry:
    centres = patch_centres(grid, stride)
    return Geometry(grid, stride[0], prefix, 1, patch_distances(centres, centres))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def product(
    rows: int = 2, heads: int = 3, prefix: int = 1, patches: int = PATCHES, **options: object
) -> ProductScores:
    q, k = (2 * random(rows, heads, prefix + patches, 8, seed=seed) for seed in (1, 2))
    return ProductScores(q, k, 8**-0.5, **options)


def expected(scores: Tensor, prefix: int = 1) -> np.ndarray:
    """Means (B, H, 4) by the definition, from scores (B, H, N, N) in float64."""
    a = torch.softmax(scores.double(), -1).numpy()
    patch = a[:, :, prefix:, prefix:]
    raw = (patch * geometry().distances).sum(-1)
    entropy = -(a * np.log(np.where(a > 0, a, 1))).sum(-1)[:, :, prefix:]
    mass = patch.sum(-1)
    return np.stack([value.mean(-1) for value in (raw / mass, raw, 1 - mass, entropy)], -1)


def means(sums: np.ndarray) -> np.ndarray:
    return sums[:, :, 1:] / sums[:, :, :1]


def full(given: ProductScores) -> Tensor:
    scores = given.q.double() @ given.k.double().transpose(-1, -2) * given.scale
    if given.causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril() == 0, -torch.inf)
    if given.bias is not None:
        scores = (
            scores.masked_fill(~given.bias, -torch.inf)
            if given.bias.dtype == torch.bool
            else scores + given.bias
        )
    return scores


MASKS = {
    "none": {},
    "causal": {"causal": True},
    "additive": {"bias": random(1, 3, 13, 13, seed=5)},
    "additive with -inf": {
        "bias": torch.where(random(13, 13, seed=6) > 0.8, -torch.inf, 0.0).fill_diagonal_(0)
    },
    "boolean": {"bias": random(2, 1, 13, 13, seed=7) > -0.5},
    "of the Swin kind": {
        "bias": torch.where(random(13, 13, seed=8) > 0, -100.0, 0.0).fill_diagonal_(0)
    },
}


@pytest.mark.parametrize("mask", MASKS)
def test_masks_and_causality_are_part_of_the_scores(mask: str) -> None:
    given = product(**MASKS[mask])
    np.testing.assert_allclose(
        means(attention_sums(given, geometry(), 2)), expected(full(given)), rtol=2e-6, atol=1e-6
    )


@pytest.mark.parametrize("mask", MASKS)
def test_scores_of_the_model_itself_give_the_same(mask: str) -> None:
    given = full(product(**MASKS[mask])).float()
    before = given.clone()
    np.testing.assert_allclose(
        means(attention_sums(GivenScores(given), geometry(), 2)),
        expected(given),
        rtol=2e-6,
        atol=1e-6,
    )
    assert torch.equal(given, before)


def test_identity_attention_has_distance_zero() -> None:
    scores = 200 * torch.eye(13)[None, None]
    assert means(attention_sums(GivenScores(scores), geometry(), 1))[0, 0] == pytest.approx(
        [0, 0, 0, 0], abs=1e-6
    )


@pytest.mark.parametrize("lead", [50.0, 500.0, 1e6])
def test_all_mass_on_the_class_token_gives_a_finite_distance(lead: float) -> None:
    """The distance is that among the patches, which the class token drowns: where a plain softmax
    gives 0/0.
    """
    scores = random(2, 3, 13, 13)
    drowned = scores.clone()
    drowned[..., 0] = lead
    distance, raw, mass, entropy = means(
        attention_sums(GivenScores(drowned), geometry(), 2)
    ).transpose(2, 0, 1)
    np.testing.assert_allclose(distance, expected(scores)[:, :, 0], rtol=1e-6)
    np.testing.assert_allclose([raw, 1 - mass, entropy], 0, atol=1e-12 if lead > 50 else 1e-5)


def test_padding_counts_neither_as_query_nor_as_key() -> None:
    given = product(rows=2)
    valid = np.ones((2, PATCHES), bool)
    valid[1, 7:] = False
    sums = attention_sums(given, geometry(), 2, valid)
    assert sums[:, 0, 0].tolist() == [12, 7]
    scores = full(given)[1:, :, :8, :8]
    a = torch.softmax(scores, -1).numpy()[..., 1:, 1:]
    distances = geometry().distances[:7, :7]
    np.testing.assert_allclose(
        means(sums)[1, :, 0], ((a * distances).sum(-1) / a.sum(-1)).mean(-1)[0], rtol=1e-5
    )


def test_queries_that_may_see_no_patch_are_left_out() -> None:
    bias = torch.zeros(13, 13)
    bias[5, 1:] = -torch.inf
    bias[6] = -torch.inf
    sums = attention_sums(product(bias=bias), geometry(), 2)
    assert (sums[:, :, 0] == 10).all()
    assert np.isfinite(sums).all()


def test_not_a_number_stays_in_sight() -> None:
    for key in (0, 4):  # of the class token, of a patch
        scores = random(1, 1, 13, 13)
        scores[0, 0, 4, key] = torch.nan
        assert np.isnan(attention_sums(GivenScores(scores), geometry(), 1)).any()


@pytest.mark.parametrize("limit", [1, 13, 40, 13 * 13, 3 * 13 * 13, 10**6])
def test_the_size_of_the_chunks_changes_nothing(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attention_sums(product(causal=True), geometry(), 2)
    monkeypatch.setitem(summing.CHUNK, "cpu", limit)
    np.testing.assert_allclose(
        attention_sums(product(causal=True), geometry(), 2), whole, rtol=1e-6
    )


@pytest.mark.parametrize(
    "shape", [(8, 12, 197, 197), (1, 16, 1025, 1025), (512, 3, 49, 49), (1, 1, 4097, 4097)]
)
@pytest.mark.parametrize("limit", [2**19, 2**22])
def test_a_chunk_holds_the_limit_at_most_and_all_chunks_hold_every_patch_query_once(
    shape, limit
) -> None:
    seen = np.zeros((shape[0], shape[1], shape[2]), int)
    for rows, heads, parts in chunks(shape, 1, limit):
        for queries in parts:
            assert (rows.stop - rows.start) * (heads.stop - heads.start) * (
                queries.stop - queries.start
            ) * shape[3] <= limit
            seen[rows, heads, queries] += 1
    assert (seen[:, :, 1:] == 1).all()
    assert (seen[:, :, 0] == 0).all()


@pytest.mark.parametrize(
    ("shape", "most"), [((1, 12, 197, 197), 12), ((2, 3, 49, 49), 6), ((1, 1, 1025, 1025), 1)]
)
@pytest.mark.parametrize("wanted", [1, 4, 16])
def test_there_are_as_many_parts_as_wanted_if_there_are_heads_for_it(shape, most, wanted) -> None:
    parts = chunks(shape, 1, 2**19, at_least=wanted)
    assert min(wanted, most) <= len(parts) <= most


@pytest.fixture
def threads_of_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("limit", [40, 2**19])  # one with several parts of the queries
def test_the_number_of_threads_changes_no_digit(
    limit: int, monkeypatch: pytest.MonkeyPatch, threads_of_torch: None
) -> None:
    monkeypatch.setitem(summing.CHUNK, "cpu", limit)
    sums = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums.append(attention_sums(product(rows=3), geometry(), 3))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(sums, [sums[0]] * 3)


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scores_are_computed_in_float32_or_better(
    dtype: torch.dtype, computed: torch.dtype
) -> None:
    given = product()
    low = ProductScores(given.q.to(dtype), given.k.to(dtype), given.scale)
    assert low.part(*[slice(0, 1)] * 4).dtype == computed
    exact = ProductScores(low.q.double(), low.k.double(), given.scale)
    np.testing.assert_allclose(
        attention_sums(low, geometry(), 2), attention_sums(exact, geometry(), 2), rtol=1e-5
    )


def test_windows_are_averaged_into_their_image() -> None:
    given = product(rows=6, prefix=0)
    centres = patch_centres(GRID, (16.0, 16.0))
    windows = Geometry((9, 4), 16.0, 0, 3, patch_distances(centres, centres))
    alone = [
        attention_sums(product(rows=6, prefix=0), geometry(0), 6)[i : i + 3].sum(0) for i in (0, 3)
    ]
    np.testing.assert_allclose(attention_sums(given, windows, 2), alone, rtol=1e-12)


def test_tokens_that_fill_up_a_window_are_no_patches() -> None:
    outside = np.zeros((2, PATCHES), bool)
    outside[1, 5:] = True
    given = product(rows=2, prefix=0)
    centres = patch_centres(GRID, (16.0, 16.0))
    sums = attention_sums(
        given, Geometry((3, 6), 16.0, 0, 2, patch_distances(centres, centres), outside), 1
    )
    valid = attention_sums(given, geometry(0), 2, ~outside)
    np.testing.assert_allclose(sums[0], valid.sum(0), rtol=1e-12)
    assert sums[0, 0, 0] == 12 + 5


def test_uniform_distance_of_filled_up_windows_is_over_real_tokens() -> None:
    outside = np.zeros((2, PATCHES), bool)
    outside[1, 5:] = True
    distances = geometry().distances
    by_hand = (distances.mean(1).sum() + distances[:5, :5].mean(1).sum()) / 17
    assert Geometry((3, 6), 16.0, 0, 2, distances, outside).uniform_px == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("grid", "stride", "uniform"),
    [
        ((14, 14), 16.0, 116.49),
        ((7, 7), 32.0, 115.50),
        ((24, 24), 16.0, 200.05),
        ((16, 16), 14.0, 116.57),
        ((8, 8), 4.0, 16.55),
    ],
)
def test_uniform_attention_on_the_grids_of_common_models(grid, stride, uniform) -> None:
    one = geometry(0, grid, (stride, stride))
    assert one.uniform_px == pytest.approx(uniform, abs=0.01)
    count = grid[0] * grid[1]
    sums = means(attention_sums(GivenScores(torch.zeros(1, 1, count, count)), one, 1))[0, 0]
    assert sums == pytest.approx([one.uniform_px, one.uniform_px, 0, np.log(count)], rel=1e-6)


def test_the_largest_distance_on_14_by_14_patches_of_16_pixels() -> None:
    assert geometry(0, (14, 14)).distances.max() == pytest.approx(294.16, abs=0.01)


def test_patches_that_are_not_square_keep_their_two_sides() -> None:
    distances = geometry(0, (2, 2), (8.0, 32.0)).distances
    np.testing.assert_allclose(distances[0], [0, 32, 8, np.hypot(8, 32)])


def test_merged_sums_are_those_of_one_pass() -> None:
    sums = attention_sums(product(rows=5), geometry(), 5)
    whole, first, second = (HeadSums(3) for _ in range(3))
    whole.update(sums)
    first.update(sums[:2])
    second.update(sums[2:])
    first.merge(second)
    np.testing.assert_allclose(first.means(), whole.means(), rtol=1e-14)
    np.testing.assert_allclose(first.std(), means(sums)[:, :, 0].std(0), rtol=1e-9)
    assert first.images.tolist() == [5, 5, 5]


def test_of_one_image_the_std_is_zero_and_without_one_nothing_is_known() -> None:
    one = HeadSums(3)
    one.update(attention_sums(product(rows=1), geometry(), 1))
    assert one.std().tolist() == [0, 0, 0]
    nothing = HeadSums(3)
    nothing.update(np.zeros((2, 3, 5)))
    assert np.isnan(nothing.means()).all()
    assert np.isnan(nothing.std()).all()


def test_all_probabilities_of_an_image_sum_to_one() -> None:
    np.testing.assert_allclose(probabilities(product(causal=True)).sum(-1), 1, rtol=1e-6)
