"""Which tasks read which slots: by hand, through a run's updates and checkpoints, and as a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.decision_transformer.slot_usage import CELL, FULL, MARGIN, SlotUsage, slots_image
from tests.agents.decision_transformer.small import SLOTS, TOKENS, Fixed, batch, build, train

CPU = torch.device("cpu")


def test_shares_by_hand() -> None:
    usage = SlotUsage(["a", "b", "c"], 2, CPU)
    usage.add(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 0, -1, 1]))
    usage.add(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    np.testing.assert_allclose(usage.taken(), [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]])
    assert not usage.taken().any(), "counting starts anew"


@pytest.mark.parametrize("memory", [SLOTS, {**SLOTS, "placement": "per_block"}])
def test_reporting_steps_are_counted_and_go_through_a_checkpoint(memory: dict[str, object]) -> None:
    agent = build(memory=memory, metrics_period=2)
    train(agent, Fixed(batch()), 3)
    usage = agent.learner.slot_usage
    assert usage is not None
    assert usage.sums_ZM.sum().item() == pytest.approx(4), "one of three steps reports, of 4 rows"
    twin = build(memory=memory, metrics_period=2)
    twin.load_training_state(agent.optimizer_state(), agent.counters())
    (picture,) = agent.pictures().values()
    np.testing.assert_array_equal(picture, twin.pictures()["memory/slots_by_task"])
    assert agent.pictures() == {}


def test_models_without_slots_draw_nothing() -> None:
    for agent in (build(), build(memory=TOKENS)):
        train(agent, Fixed(batch()), 3)
        assert agent.learner.slot_usage is None and agent.pictures() == {}


def test_the_picture_has_a_square_per_slot() -> None:
    shares_ZM = np.array([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    picture = slots_image(["reach", "push"], shares_ZM)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    left, top = picture.shape[1] - MARGIN - 3 * CELL, MARGIN + CELL
    corners = picture[top + CELL // 2 :: CELL, left + CELL // 2 :: CELL][:2, :3]
    assert tuple(corners[0, 1]) == FULL and tuple(corners[0, 0]) == (255, 255, 255)
    assert tuple(corners[1, 1]) == tuple(corners[1, 2]) == (236, 197, 202)
