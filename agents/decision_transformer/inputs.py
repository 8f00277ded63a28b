"""What a sequence model is given: one segment of each row, and perhaps a prompt. All of it is known before the actions.

Rows may be padded on either side. `aligned` moves padding to the right, where causal attention never looks, so that one
mask serves every batch and the side of the padding changes nothing.

Legend: B rows, S segments, K steps of a segment, P prompt steps, O observation shape, A action shape (empty for
discrete actions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.heads import to_tensor

if TYPE_CHECKING:
    from memory.trajectory_samplers import SegmentBatch


class PromptInputs(NamedTuple):
    """Steps of a demonstration, whole: unlike those of a segment they hold the action taken.

    Attributes:
        obs: (B, P, *O).
        action: (B, P, *A), indices or vectors in [-1, 1].
        return_to_go: (B, P), undiscounted, in units of return.
        timestep: (B, P) int64, 0-based in the demonstration's episode.
        valid: (B, P) bool, True where the step is real.
    """

    obs: Tensor
    action: Tensor
    return_to_go: Tensor
    timestep: Tensor
    valid: Tensor


class SegmentInputs(NamedTuple):
    """One segment of B rows. Step t holds nothing that its action could have changed.

    Attributes:
        obs: (B, K, *O), uint8 images or float vectors, neither scaled nor normalised.
        previous_action: (B, K, *A), indices or vectors in [-1, 1]; 0 at an episode's first step.
        previous_reward: (B, K); 0 at an episode's first step.
        return_to_go: (B, K), the return from this step on: of the data, or asked for. Unscaled.
        timestep: (B, K) int64, 0-based in the episode.
        valid: (B, K) bool, True where the step is real; a row's real steps are next to each other.
        task: (B,) int64, place in the data's list of tasks. The model does not read it.
        prompt: steps put before the segment, or None.
    """

    obs: Tensor
    previous_action: Tensor
    previous_reward: Tensor
    return_to_go: Tensor
    timestep: Tensor
    valid: Tensor
    task: Tensor
    prompt: PromptInputs | None = None


def segment_inputs(batch: SegmentBatch, segment: int, device: torch.device) -> SegmentInputs:
    """Gives one segment of a sampled batch as tensors on a device.

    Args:
        batch: of S segments.
        segment: which, 0 to S - 1.
        device: where the model lives.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return to_tensor(np.ascontiguousarray(array[:, segment]), device)

    return SegmentInputs(
        obs=tensor(batch.obs),
        previous_action=tensor(batch.previous_action),
        previous_reward=tensor(batch.previous_reward),
        return_to_go=tensor(batch.return_to_go),
        timestep=tensor(batch.timestep),
        valid=tensor(batch.valid),
        task=tensor(batch.task),
        prompt=prompt_inputs(batch, device),
    )


def prompt_inputs(batch: SegmentBatch, device: torch.device) -> PromptInputs | None:
    """Gives the prompt of a sampled batch as tensors on a device, or None where it has none."""
    if (
        batch.prompt_obs is None
        or batch.prompt_action is None
        or batch.prompt_return_to_go is None
        or batch.prompt_timestep is None
        or batch.prompt_valid is None
    ):
        return None
    return PromptInputs(
        obs=to_tensor(batch.prompt_obs, device),
        action=to_tensor(batch.prompt_action, device),
        return_to_go=to_tensor(batch.prompt_return_to_go, device),
        timestep=to_tensor(batch.prompt_timestep, device),
        valid=to_tensor(batch.prompt_valid, device),
    )


def aligned(inputs: SegmentInputs) -> tuple[SegmentInputs, Tensor]:
    """Moves each row's real steps to the front, in order.

    Returns:
        the inputs with padding on the right only, and `places_BK`, with which `realigned` undoes the move.
    """
    index_BK, places_BK = _rotation(inputs.valid)
    prompt = inputs.prompt
    if prompt is not None:
        prompt_index_BP, _ = _rotation(prompt.valid)
        prompt = PromptInputs(*(steps_at(field, prompt_index_BP) for field in prompt))
    moved = SegmentInputs(
        obs=steps_at(inputs.obs, index_BK),
        previous_action=steps_at(inputs.previous_action, index_BK),
        previous_reward=steps_at(inputs.previous_reward, index_BK),
        return_to_go=steps_at(inputs.return_to_go, index_BK),
        timestep=steps_at(inputs.timestep, index_BK),
        valid=steps_at(inputs.valid, index_BK),
        task=inputs.task,
        prompt=prompt,
    )
    return moved, places_BK


def realigned(tensor: Tensor, places_BK: Tensor) -> Tensor:
    """Puts steps (B, K, ...) back to where `aligned` took them from."""
    return steps_at(tensor, places_BK)


def steps_at(tensor: Tensor, index_BK: Tensor) -> Tensor:
    """Gives the steps (B, K, ...) at the listed places of each row."""
    rows_B1 = torch.arange(len(tensor), device=tensor.device).unsqueeze(1)
    return tensor[rows_B1, index_BK]


def _rotation(valid_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Gives the places to take steps from so that padding comes last, and those which undo it."""
    num_steps = valid_BK.shape[1]
    first_B1 = valid_BK.to(torch.uint8).argmax(1, keepdim=True)  # of the real steps; 0 in a row that has none
    steps_K = torch.arange(num_steps, device=valid_BK.device)
    return (steps_K + first_B1) % num_steps, (steps_K - first_B1) % num_steps
