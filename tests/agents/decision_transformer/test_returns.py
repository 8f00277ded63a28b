"""The codec, the tilt and the draws against numbers typed by hand, and rows that do not know of each other."""

import math

import numpy as np
import pytest
import torch

from agents.decision_transformer.returns import (
    ReturnCodec,
    draw,
    sample_high_return,
    sample_tilted_return,
    sample_top_action,
    tilted_logits,
)

CODEC = ReturnCodec()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_codec_round_trip_of_all_121_ids() -> None:
    ids = torch.arange(121)
    assert CODEC.spacing == 1.0
    assert torch.equal(CODEC.encode(CODEC.decode(ids)), ids)
    assert torch.equal(CODEC.decode(ids), torch.arange(-20.0, 101.0))


def test_codec_clips_to_its_ends_and_rounds_to_the_nearest_bin() -> None:
    returns = torch.tensor([-1000.0, -20.0, -19.6, -0.4, 0.6, 99.7, 100.0, 5000.0])
    assert CODEC.encode(returns).tolist() == [0, 0, 0, 20, 21, 120, 120, 120]
    assert CODEC.encode(returns).dtype == torch.int64


def test_codec_of_other_bins() -> None:
    codec = ReturnCodec(low=0.0, high=2.0, bins=5)
    assert codec.values().tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert codec.encode(torch.tensor([0.2, 0.3, 1.9])).tolist() == [0, 1, 4]


@pytest.mark.parametrize(("low", "high", "bins"), [(1.0, 1.0, 3), (0.0, 1.0, 1)])
def test_senseless_codec_is_refused(low: float, high: float, bins: int) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}, bins={bins}"):
        ReturnCodec(low, high, bins)


def test_tilt_against_numbers_typed_by_hand() -> None:
    """p = (2, 1, 1) / 4 over returns 0, 1, 2; kappa = ln 16 multiplies by 1, 4, 16: (2, 4, 16) / 22."""
    codec = ReturnCodec(0.0, 2.0, 3)
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25)]]) + 3.0
    tilted = tilted_logits(logits, codec, math.log(16.0)).softmax(-1)
    torch.testing.assert_close(tilted, torch.tensor([[2.0, 4.0, 16.0]]) / 22.0)


def test_no_tilt_is_the_models_law() -> None:
    logits = torch.randn(3, 121, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tilted_logits(logits, CODEC, 0.0), logits.log_softmax(-1))


def test_expected_return_rises_with_kappa() -> None:
    logits = torch.randn(4, 121, generator=torch.Generator().manual_seed(1))
    means = torch.stack(
        [(tilted_logits(logits, CODEC, kappa).softmax(-1) * CODEC.values()).sum(-1) for kappa in (0.0, 0.1, 1.0, 10.0)]
    )
    assert (means[1:] > means[:-1]).all()


def test_draws_follow_the_softmax_and_never_take_what_is_masked() -> None:
    probabilities = torch.tensor([[0.0, 0.2, 0.0, 0.8, 0.0], [0.5, 0.0, 0.0, 0.0, 0.5]])
    ids = draw(probabilities.log(), rng(), 20_000)
    for row, expected in zip(ids, probabilities, strict=True):
        shares = torch.bincount(row, minlength=5) / 20_000
        assert ((shares == 0) == (expected == 0)).all()
        torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)  # four standard errors


def test_highest_draw_has_the_law_of_a_maximum() -> None:
    """P(max of n draws <= R) = F(R)^n: with p = 1/2 and 2 draws, the lower of two bins remains in a quarter."""
    codec, logits = ReturnCodec(0.0, 1.0, 2), torch.zeros(40_000, 2)
    highest = sample_high_return(logits, codec, num_samples=2, temperature=0.75, rng=rng())
    assert highest.mean().item() == pytest.approx(0.75, abs=0.01)
    one = sample_high_return(logits, codec, num_samples=1, temperature=0.75, rng=rng())
    assert one.mean().item() == pytest.approx(0.5, abs=0.012)


def test_a_temperature_below_one_flattens() -> None:
    """Logits 0 and 2 times 0.75: the second is drawn with probability 1 / (1 + e^-1.5) = 0.8176, not 0.8808."""
    codec, logits = ReturnCodec(0.0, 1.0, 2), torch.tensor([[0.0, 2.0]]).expand(40_000, 2)
    drawn = sample_high_return(logits, codec, num_samples=1, temperature=0.75, rng=rng())
    assert drawn.mean().item() == pytest.approx(0.8176, abs=0.008)


def test_tilted_draws_follow_the_tilted_law() -> None:
    codec, logits = ReturnCodec(0.0, 1.0, 2), torch.zeros(40_000, 2)
    drawn = sample_tilted_return(logits, codec, kappa=math.log(4.0), rng=rng())
    assert drawn.mean().item() == pytest.approx(0.8, abs=0.008)


def test_rows_do_not_know_of_each_other() -> None:
    """Changing the logits of row 1 changes nothing in rows 0 and 2. (The release took one maximum over the batch.)"""
    logits = torch.randn(3, 121, generator=torch.Generator().manual_seed(2))
    other = logits.clone()
    other[1, 0] = 50.0
    for sample in (
        lambda x: sample_tilted_return(x, CODEC, kappa=1.0, rng=rng(3)),
        lambda x: sample_high_return(x, CODEC, num_samples=128, temperature=0.75, rng=rng(3)),
        lambda x: sample_top_action(x, percentile=50.0, rng=rng(3)).float(),
    ):
        before, after = sample(logits), sample(other)
        assert torch.equal(before[[0, 2]], after[[0, 2]]) and before[1] != after[1]


def test_actions_are_drawn_strictly_above_the_percentile() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0, 5.0]]).repeat(2_000, 1)
    actions = sample_top_action(logits, percentile=50.0, rng=rng())
    assert set(actions[::2].tolist()) == {3, 4}  # the median, 2, is not above itself
    assert set(actions[1::2].tolist()) == {0, 1, 2, 3, 4}  # nothing is above it: drawn as it is
