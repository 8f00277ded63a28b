"""A demonstration of each task, kept beside the model's weights, so that a prompted agent can act without its data.

Legend: N environments, B rows of a batch, Z tasks, P prompt steps, O observation shape, A action shape (empty for
discrete actions).
Source: Xu et al. 2022, Prompt-DT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from agents.decision_transformer.inputs import PromptInputs, prompt_inputs

if TYPE_CHECKING:
    from memory.trajectory_samplers import SegmentBatch


class PromptStore(nn.Module):
    """Buffers with the prompt of each task. Without a demonstration, a task's prompt has no valid step.

    Args:
        num_tasks: Z.
        num_steps: P.
        observation_space: of one environment.
        action_space: of one environment.
    """

    def __init__(
        self,
        num_tasks: int,
        num_steps: int,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
    ) -> None:
        super().__init__()
        assert observation_space.shape is not None and action_space.shape is not None
        lead = (num_tasks + 1, num_steps)  # the last one, for unknown tasks, stays empty
        discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        pixels = observation_space.dtype == np.uint8
        self.obs: Tensor
        self.action: Tensor
        self.return_to_go: Tensor
        self.timestep: Tensor
        self.valid: Tensor
        obs_dtype = torch.uint8 if pixels else torch.float32
        action_dtype = torch.int64 if discrete else torch.float32
        self.register_buffer("obs", torch.zeros(*lead, *observation_space.shape, dtype=obs_dtype))
        self.register_buffer("action", torch.zeros(*lead, *action_space.shape, dtype=action_dtype))
        self.register_buffer("return_to_go", torch.zeros(lead))
        self.register_buffer("timestep", torch.zeros(lead, dtype=torch.int64))
        self.register_buffer("valid", torch.zeros(lead, dtype=torch.bool))

    def take(self, batch: SegmentBatch) -> list[int]:
        """Keeps, for every task of a batch with prompts, the prompt of its first row.

        Returns:
            the places of these tasks, ascending.

        Raises:
            ValueError: if the batch has no prompts.
        """
        prompt = prompt_inputs(batch, self.obs.device)
        if prompt is None:
            raise ValueError(f"{batch} has no prompts: sample it with num_prompt_steps={self.obs.shape[1]}")
        tasks, rows = np.unique(batch.task[:, 0], return_index=True)
        for name, value in prompt._asdict().items():
            getattr(self, name)[torch.from_numpy(tasks)] = value[torch.from_numpy(rows)]
        return tasks.tolist()

    def of(self, task_N: Tensor) -> PromptInputs:
        """Gives the prompts of tasks (N,); -1 is an unknown one."""
        return PromptInputs(*(getattr(self, name)[task_N] for name in PromptInputs._fields))
