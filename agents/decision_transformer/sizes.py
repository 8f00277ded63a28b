"""How many parameters a model has, by part, and the width at which it has as many as another.

So a plain Decision Transformer can be built at the same backbone as one with a memory, and at the same total.

Legend: D width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np

from agents.decision_transformer.model import SequenceModel
from agents.decision_transformer.part_configs import SlotMemoryConfig
from agents.interface import seeded_initialization

if TYPE_CHECKING:
    from agents.decision_transformer.config import DecisionTransformerConfig

PARTS = ("embedding", "backbone", "adapters", "memory", "heads")


class ParameterCounts(NamedTuple):
    """Numbers of parameters of one model; buffers do not count.

    Attributes:
        embedding: tokenizers and positions.
        backbone: blocks and final norm, without adapters.
        adapters: bottlenecks in the blocks.
        memory: projections and initial slots, or memory tokens.
        heads: actions, returns, rewards.
        trainable: of all, those that take gradients.
    """

    embedding: int
    backbone: int
    adapters: int
    memory: int
    heads: int
    trainable: int

    @property
    def total(self) -> int:
        """All parts together."""
        return self.embedding + self.backbone + self.adapters + self.memory + self.heads

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name):,}" for name in PARTS if getattr(self, name))
        return f"{self.total:,} parameters ({parts}), {self.trainable:,} trainable"


class WidthSolution(NamedTuple):
    """The width that comes closest to a number of parameters.

    Attributes:
        width: D.
        parameters: of the model with this width.
        target: what was asked for.
    """

    width: int
    parameters: int
    target: int

    def __str__(self) -> str:
        share = self.parameters / self.target - 1.0
        return f"width {self.width}: {self.parameters:,} parameters for {self.target:,} asked ({share:+.2%})"


def part_of(name: str) -> str:
    """Gives the part that a parameter belongs to, one of `PARTS`.

    Args:
        name: as in `SequenceModel.named_parameters`.
    """
    return "adapters" if ".adapter." in name else name.partition(".")[0]


def count_parameters(model: SequenceModel) -> ParameterCounts:
    """Counts a model's parameters by part."""
    sizes, trainable = dict.fromkeys(PARTS, 0), 0
    for name, parameter in model.named_parameters():
        sizes[part_of(name)] += parameter.numel()
        trainable += parameter.numel() * parameter.requires_grad
    return ParameterCounts(**sizes, trainable=trainable)


def total_parameters(
    config: DecisionTransformerConfig, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> int:
    """Gives the number of parameters of a config's model, without building it at its width.

    A count is a polynomial of degree 2 in the width, whatever the parts: it is drawn through three narrow models.
    """
    coefficients = _polynomial(config, observation_space, action_space)
    return _evaluate(coefficients, config.width // _unit(config))


def solve_width(
    config: DecisionTransformerConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    target: int,
) -> WidthSolution:
    """Gives the width at which a config's model has closest to `target` parameters.

    Args:
        config: all but the width, which is left out of account.
        observation_space: of one environment.
        action_space: of one environment.
        target: parameters, such as the total of a model with a memory.

    Returns:
        a multiple of the heads, of backbone and memory; of two that are as close, the narrower.

    Raises:
        ValueError: if even the narrowest model has more than twice the target.
    """
    unit, coefficients = _unit(config), _polynomial(config, observation_space, action_space)
    narrowest = _evaluate(coefficients, 1)
    if narrowest > 2 * target:
        raise ValueError(f"target={target}: the narrowest model, width={unit}, has {narrowest} parameters")
    high = 1
    while _evaluate(coefficients, high) < target:
        high *= 2
    best = min(range(1, high + 1), key=lambda units: abs(_evaluate(coefficients, units) - target))
    return WidthSolution(best * unit, _evaluate(coefficients, best), target)


def _unit(config: DecisionTransformerConfig) -> int:
    """Gives the number that widths are multiples of; even, so that no width is below 2."""
    memory_heads = config.memory.num_heads if isinstance(config.memory, SlotMemoryConfig) else 1
    return math.lcm(2, config.num_heads, memory_heads)


def _polynomial(
    config: DecisionTransformerConfig, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> tuple[int, int, int]:
    """Gives the counts at 1, 2 and 3 units of width as first count, first difference and second difference."""

    def count(units: int) -> int:
        narrow = config.model_copy(update={"width": units * _unit(config)})
        return count_parameters(SequenceModel(narrow, observation_space, action_space)).total

    with seeded_initialization(np.random.SeedSequence(0)):  # so that the global generator stays as it is
        one, two, three = count(1), count(2), count(3)
    return one, two - one, three - 2 * two + one


def _evaluate(coefficients: tuple[int, int, int], units: int) -> int:
    """Gives the count at a number of units of width, by Newton's forward differences; exact in integers."""
    first, slope, bend = coefficients
    steps = units - 1
    return first + steps * slope + steps * (steps - 1) // 2 * bend
