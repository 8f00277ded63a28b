"""Exact counts and ties of masks, and one topology update by hand."""

import pytest
import torch

from agents.pruning.masks import replaced_mask, top_mask


def test_ties_fall_to_the_lower_index() -> None:
    assert top_mask(torch.ones(2, 3), 4).tolist() == [[True, True, True], [True, False, False]]
    assert top_mask(torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0]), 3).tolist() == [True, True, False, True, False]


def test_ties_do_not_depend_on_memory_layout() -> None:
    scores = torch.ones(2, 3, 4, 4)
    channels_last = scores.contiguous(memory_format=torch.channels_last)
    assert torch.equal(top_mask(scores, 37), top_mask(channels_last, 37))


@pytest.mark.parametrize("num_kept", [1, 17, 499, 500])
def test_counts_are_exact_and_equal_a_stable_sort(num_kept: int) -> None:
    scores = torch.randint(0, 9, (500,), generator=torch.Generator().manual_seed(0)).float()
    mask = top_mask(scores, num_kept)
    expected = torch.zeros(500, dtype=torch.bool)
    expected[scores.sort(descending=True, stable=True).indices[:num_kept]] = True
    assert int(mask.sum()) == num_kept and torch.equal(mask, expected)


@pytest.mark.parametrize("num_kept", [1, 99, 100, 101, 350, 399, 400, 401, 499])
def test_zeros_and_negative_scores_are_ranked_like_all_others(num_kept: int) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.cat([torch.rand(100, generator=generator), torch.zeros(300), -torch.ones(100)])
    scores = scores[torch.randperm(500, generator=generator)]
    scores[scores == scores.max()] = torch.inf
    expected = torch.zeros(500, dtype=torch.bool)
    expected[scores.sort(descending=True, stable=True).indices[:num_kept]] = True
    assert torch.equal(top_mask(scores, num_kept), expected)


@pytest.mark.parametrize("num_kept", [0, 4])
def test_impossible_counts_are_refused(num_kept: int) -> None:
    with pytest.raises(ValueError, match=f"num_kept={num_kept}"):
        top_mask(torch.ones(3), num_kept)


def test_a_topology_update_by_hand() -> None:
    kept = torch.tensor([True, True, True, True, False, False, False])
    weight = torch.tensor([0.1, -2.0, 3.0, -0.2, 0.0, 0.0, 0.0])
    growth = torch.tensor([0.0, 9.0, 9.0, 5.0, 1.0, 7.0, 2.0])
    # Half of four go: 0.1 and -0.2. The best two of the rest grow: index 5, and index 3, which comes back at once.
    assert replaced_mask(kept, weight, growth, 0.5).tolist() == [False, True, True, True, False, True, False]
    assert torch.equal(replaced_mask(kept, weight, growth, 0.0), kept)
