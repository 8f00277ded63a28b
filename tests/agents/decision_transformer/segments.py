"""Spaces, random segments and small models that the tests of the sequence model share."""

from typing import Any

import gymnasium
import numpy as np
import torch

from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.inputs import PromptInputs, SegmentInputs
from agents.decision_transformer.memory_modules import SlotMemory
from agents.decision_transformer.model import SequenceModel

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
GRID = gymnasium.spaces.Box(0, 255, (4, 10, 10), np.uint8)
DISCRETE = gymnasium.spaces.Discrete(4)
BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
STEPS = 6
SMALL: dict[str, Any] = {
    "context_length": STEPS,
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "max_timestep": 50,
    "return_scale": 10.0,
    "activation": "gelu",
}
MDT: dict[str, Any] = {
    "layout": "mdt",
    "position": "window",
    "use_reward_tokens": True,
    "reward_prediction": True,
    "return_prediction": {},
}


def build(
    observation_space: gymnasium.Space[Any] = VECTOR,
    action_space: gymnasium.Space[Any] = DISCRETE,
    *,
    seed: int = 0,
    reads: bool = True,
    **given: Any,
) -> SequenceModel:
    """Gives a small model in evaluation mode; its memory, if it has slots, already adds to its tokens."""
    torch.manual_seed(seed)
    config = DecisionTransformerConfig.model_validate({**SMALL, **given})
    model = SequenceModel(config, observation_space, action_space).eval()
    if reads and isinstance(model.memory, SlotMemory):
        for index in range(len(model.memory.cells)):
            torch.nn.init.normal_(model.memory.cell(index).output.weight, std=0.3)
    return model


def random_obs(generator: torch.Generator, *shape: int, space: gymnasium.Space[Any]) -> torch.Tensor:
    assert space.shape is not None
    if space.dtype == np.uint8:
        return torch.randint(0, 256, (*shape, *space.shape), generator=generator).to(torch.uint8)
    return torch.randn(*shape, *space.shape, generator=generator)


def random_action(generator: torch.Generator, *shape: int, space: gymnasium.Space[Any]) -> torch.Tensor:
    if isinstance(space, gymnasium.spaces.Discrete):
        return torch.randint(0, int(space.n), shape, generator=generator)
    assert space.shape is not None
    return torch.rand(*shape, *space.shape, generator=generator) * 2 - 1


def segment(
    observation_space: gymnasium.Space[Any] = VECTOR,
    action_space: gymnasium.Space[Any] = DISCRETE,
    *,
    rows: int = 2,
    steps: int = STEPS,
    seed: int = 1,
    first: int = 0,
) -> SegmentInputs:
    """Gives a segment without padding that begins at step `first` of its episodes."""
    generator = torch.Generator().manual_seed(seed)
    timestep = first + torch.arange(steps).repeat(rows, 1)
    return SegmentInputs(
        obs=random_obs(generator, rows, steps, space=observation_space),
        previous_action=random_action(generator, rows, steps, space=action_space),
        previous_reward=torch.randn(rows, steps, generator=generator),
        return_to_go=torch.randint(-20, 101, (rows, steps), generator=generator).float(),
        timestep=timestep,
        valid=torch.ones(rows, steps, dtype=torch.bool),
        task=torch.zeros(rows, dtype=torch.int64),
    )


def prompt(rows: int = 2, steps: int = 3, seed: int = 5) -> PromptInputs:
    generator = torch.Generator().manual_seed(seed)
    return PromptInputs(
        obs=random_obs(generator, rows, steps, space=VECTOR),
        action=random_action(generator, rows, steps, space=DISCRETE),
        return_to_go=torch.randint(-20, 101, (rows, steps), generator=generator).float(),
        timestep=torch.arange(steps).repeat(rows, 1),
        valid=torch.ones(rows, steps, dtype=torch.bool),
    )


def padded(inputs: SegmentInputs, length: int, *, left: bool) -> SegmentInputs:
    """Gives the same steps in a longer segment, with noise where it is padded."""
    rows, steps = inputs.valid.shape
    generator = torch.Generator().manual_seed(77)
    start = length - steps if left else 0

    def longer(field: torch.Tensor) -> torch.Tensor:
        if field.dtype == torch.bool:
            out = torch.zeros(rows, length, dtype=torch.bool)
        else:
            noise = torch.randint(0, 4, (rows, length, *field.shape[2:]), generator=generator)
            out = noise.to(field.dtype)
        out[:, start : start + steps] = field
        return out

    fields: dict[str, Any] = {
        name: longer(getattr(inputs, name)) for name in inputs._fields if name not in ("task", "prompt")
    }
    return inputs._replace(**fields)
