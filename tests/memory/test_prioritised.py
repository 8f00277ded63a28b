"""Priorities and weights against numbers typed by hand, and draws against their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tianshou.data import SegmentTree

from memory.prioritised import Priorities
from tests.memory.test_tianshou_algorithms import DISCRETE, fill, make_dqn, make_replay, trained, vector_stream


def make(alpha: float = 0.5, beta: float = 0.5, size: int = 5) -> Priorities:
    return Priorities(SegmentTree(size), size, alpha, beta)


def test_priorities_and_weights_by_hand() -> None:
    priorities, at = make(), np.arange(3)
    priorities.replace(at, gone=np.array([], int))
    assert priorities.leaves(np.arange(5)).tolist() == [1, 1, 1, 0, 0]
    priorities.update(at, np.array([0.0, -4.0, 16.0]))
    assert priorities.leaves(at).tolist() == pytest.approx([1e-5, 2.0, 4.0], rel=1e-6)
    assert priorities.weights(at[1:]).tolist() == pytest.approx([1.0, 0.5**0.5])
    assert priorities.weights(at).dtype == np.float32
    priorities.beta = 1.0
    assert priorities.weights(at[1:]).tolist() == pytest.approx([1.0, 0.5])


def test_alpha_takes_effect() -> None:
    for alpha in (0.25, 1.0):
        priorities = make(alpha)
        priorities.update(np.array([0]), np.array([16.0]))
        assert priorities.leaves(np.array([0]))[0] == pytest.approx(16**alpha)


def test_new_transitions_get_the_largest_priority_seen() -> None:
    priorities = make()
    priorities.update(np.array([0]), np.array([100.0]))
    priorities.update(np.array([0]), np.array([1.0]))
    priorities.replace(np.array([1]), gone=np.array([0]))
    assert priorities.leaves(np.arange(3)).tolist() == pytest.approx([0.0, 10.0, 0.0])


def test_draws_follow_the_priorities_and_never_hit_an_empty_slot() -> None:
    priorities = make(alpha=1.0, size=6)
    priorities.update(np.array([1, 3, 4]), np.array([1.0, 2.0, 5.0]))
    counts = np.bincount(priorities.draw(np.random.default_rng(0), 80_000), minlength=6)
    assert counts[[0, 2, 5]].tolist() == [0, 0, 0]
    assert counts[[1, 3, 4]].tolist() == pytest.approx([10_000, 20_000, 50_000], rel=0.04)


@pytest.mark.parametrize("lowest", [0.0, 1.0 - 2.0**-53])
def test_the_edges_of_the_unit_interval_are_safe(lowest: float) -> None:
    """Zero would fall on a leading empty slot, and a number just below one may round up to the total."""

    class Edge:
        calls = 0

        def random(self, num: int) -> np.ndarray:
            self.calls += 1
            return np.full(num, lowest if self.calls == 1 else 0.5)

    priorities = make(alpha=1.0, size=5)
    priorities.update(np.array([1, 2]), np.array([0.1, 0.2]))
    rng: Any = Edge()
    assert set(priorities.draw(rng, 3).tolist()) <= {1, 2}


def test_bad_errors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be finite .* nan"):
        make().update(np.array([0]), np.array([np.nan]))
    with pytest.raises(ValueError, match=r"1 indices but errors of shape \(2,\)"):
        make().update(np.array([0]), np.zeros(2))
    with pytest.raises(ValueError, match="empty replay"):
        make().draw(np.random.default_rng(0), 3)


def test_only_a_prioritised_replay_offers_update_weight() -> None:
    plain, prioritised = make_replay(DISCRETE), make_replay(DISCRETE, prioritised=True)
    assert not hasattr(plain, "update_weight")  # Tianshou asks with hasattr
    with pytest.raises(ValueError, match="needs prioritised=true"):
        plain.set_beta(0.4)
    fill(prioritised, vector_stream(DISCRETE, 5))
    prioritised.update_weight(np.array([0, 39]), torch.tensor([4.0, 9.0], requires_grad=True))
    assert prioritised.priorities is not None
    assert prioritised.priorities.leaves(np.array([0, 39])).tolist() == pytest.approx([2.0, 0.0])  # 39 holds nothing


def test_tianshous_algorithm_updates_the_priorities() -> None:
    replay = fill(make_replay(DISCRETE, prioritised=True), vector_stream(DISCRETE, 20))
    trained(make_dqn, replay)
    leaves = replay.priorities.leaves(replay.sample_indices(0))
    assert len(np.unique(leaves)) > 10
    batch, _ = replay.sample(32)
    assert batch.weight.max() == 1 and batch.weight.min() < 1


def test_forgetting_empties_the_draw() -> None:
    replay = fill(make_replay(DISCRETE, prioritised=True), vector_stream(DISCRETE, 20))
    replay.reset()
    with pytest.raises(ValueError, match="empty replay"):
        replay.sample(4)
    fill(replay, vector_stream(DISCRETE, 1))
    assert set(replay.sample_indices(50).tolist()) == set(replay.sample_indices(0).tolist())
