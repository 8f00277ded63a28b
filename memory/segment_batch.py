"""What sequence models are trained on: segments of episodes, padded to one length.

Legend: B rows, S segments of a row, K steps of a segment (context length), P steps of a prompt, O observation shape,
A action shape (empty for discrete actions).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """Segments of episodes. Where ``valid`` is False everything is zero.

    Attributes:
        obs: (B, S, K, *O) float32, or uint8 stacks and images.
        previous_action: the action before, (B, S, K, *A); 0 at an episode's first step.
        previous_reward: the reward it brought, (B, S, K) float32; 0 at an episode's first step.
        return_to_go: sum of the rewards from this step to the episode's end, (B, S, K) float32.
        timestep: step in its episode, 0-based, (B, S, K) int64.
        action: the action taken, (B, S, K, *A); a target.
        reward: the reward it brought, (B, S, K) float32; a target.
        valid: True at real steps, (B, S, K) bool.
        starts: True where a segment begins with the initial memory, (B, S) bool.
        task: place in the data's list of tasks, (B, S) int64.
        prompt_obs: steps of the same task to condition on, (B, P, *O); this and what follows are None unless asked for.
        prompt_action: (B, P, *A).
        prompt_return_to_go: (B, P) float32.
        prompt_timestep: (B, P) int64.
        prompt_valid: (B, P) bool.
    """

    obs: np.ndarray
    previous_action: np.ndarray
    previous_reward: np.ndarray
    return_to_go: np.ndarray
    timestep: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    valid: np.ndarray
    starts: np.ndarray
    task: np.ndarray
    prompt_obs: np.ndarray | None = None
    prompt_action: np.ndarray | None = None
    prompt_return_to_go: np.ndarray | None = None
    prompt_timestep: np.ndarray | None = None
    prompt_valid: np.ndarray | None = None

    @property
    def is_first_step(self) -> np.ndarray:
        """True at an episode's first step, (B, S, K) bool."""
        return (self.timestep == 0) & self.valid

    def __len__(self) -> int:
        """Gives the number of rows."""
        return len(self.valid)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value.dtype}{list(value.shape)}" for name, value in self.__dict__.items() if value is not None
        )
        return f"SegmentBatch({', '.join(shown)})"
