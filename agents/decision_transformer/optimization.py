"""The optimizer of sequence models: AdamW that decays matrices only, and a learning rate that warms up.

Source: Chen et al. 2021, gym/experiment.py (AdamW, linear warm-up); karpathy/minGPT for what is decayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from tianshou.algorithm.optim import OptimizerFactory, ParamsType
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from agents.decision_transformer.lora import LoRALinear

if TYPE_CHECKING:
    from agents.decision_transformer.config import DecisionTransformerConfig

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, LoRALinear)


class SequenceOptimizerFactory(OptimizerFactory):
    """Makes AdamW over the trainable parameters of a model, and the schedule of its learning rate.

    Args:
        config: learning rate, decay, warm-up.
        total_gradient_steps: length of the run, at which a falling learning rate reaches 0.
    """

    def __init__(self, config: DecisionTransformerConfig, total_gradient_steps: int) -> None:
        super().__init__()
        self.config = config
        self.factor = learning_rate_factor(config.warmup_steps, config.decay, total_gradient_steps)

    def create_instances(self, module: nn.Module) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """Gives optimizer and schedule of a module.

        Raises:
            ValueError: if none of its parameters is trainable.
        """
        optimizer = self._create_optimizer_for_params(decay_groups(module, self.config.weight_decay))
        return optimizer, LambdaLR(optimizer, self.factor)

    def _create_optimizer_for_params(self, params: ParamsType) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=self.config.learning_rate, fused=True)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Gives the trainable parameters as groups: matrices of layers, which decay, and all others, which do not.

    Norms, biases, embedding and position tables, and initial memories are no matrices of layers. A group that would be
    empty is left out.

    Raises:
        ValueError: if no parameter is trainable.
    """
    decayed: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    seen: set[int] = set()
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            (decayed if isinstance(layer, MATRIX_LAYERS) and parameter.ndim > 1 else other).append(parameter)
    if not seen:
        raise ValueError(f"this {type(module).__name__} has no trainable parameter")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": other, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate_factor(warmup_steps: int, decay: str, total_gradient_steps: int) -> Callable[[int], float]:
    """Gives the factor of the learning rate as a function of the gradient steps taken.

    Args:
        warmup_steps: gradient steps over which it rises in a straight line to 1; the first is 1 / warmup_steps.
        decay: none stays at 1; cosine and linear fall to 0 at the end of the run.
        total_gradient_steps: length of the run.
    Source: Chen et al. 2021, gym/experiment.py, for the warm-up.
    """
    duration = max(1, total_gradient_steps - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / duration)
        if decay == "linear":
            return 1.0 - progress
        return 0.5 * (1.0 + math.cos(math.pi * progress)) if decay == "cosine" else 1.0

    return factor
