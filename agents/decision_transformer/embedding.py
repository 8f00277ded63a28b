"""From a segment to the tokens of its steps: their order, their positions, and what stands in a prompt.

Legend: B rows, K steps, P prompt steps, G tokens of a step, V observation tokens of a step, D width, O observation
shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import torch
from torch import Tensor, nn

from agents.decision_transformer.inputs import PromptInputs, SegmentInputs
from agents.decision_transformer.returns import ReturnCodec
from agents.decision_transformer.tokenizers import (
    INIT_STD,
    ActionTokenizer,
    ReturnTokenizer,
    RewardTokenizer,
    build_tokenizer,
)

if TYPE_CHECKING:
    from agents.decision_transformer.config import SequenceFields
    from memory.data_summary import DataSummary


@dataclass(frozen=True)
class StepLayout:
    """Places of the tokens within one step. The previous action's is 0.

    Attributes:
        num_obs_tokens: V.
        obs_start: place of the first observation token.
        return_at: place of the return token, or None.
        reward_at: place of the previous reward's token, or None.
        num_tokens: G.
    """

    num_obs_tokens: int
    obs_start: int
    return_at: int | None
    reward_at: int | None
    num_tokens: int

    @property
    def action_from(self) -> int:
        """Place of the token that the action is read at: the step's last."""
        return self.num_tokens - 1

    @property
    def return_from(self) -> int:
        """Place of the token that the return is predicted at: the last one of the observation."""
        return self.obs_start + self.num_obs_tokens - 1

    @property
    def obs(self) -> slice:
        """Places of the observation tokens."""
        return slice(self.obs_start, self.obs_start + self.num_obs_tokens)


def step_layout(config: SequenceFields, num_obs_tokens: int) -> StepLayout:
    """Gives the order of a step's tokens: everything known before its action, and nothing else.

    Differs from Chen et al. 2021 and google-research/multi_game_dt, whose steps end with their own action (and reward):
    here it opens the next step, so that a memory may be written with whole steps. At a window's left edge the model
    therefore sees one action more.
    """
    reward_at = 1 if config.use_reward_tokens else None
    start = 1 if reward_at is None else 2
    if not config.condition_on_return:
        return StepLayout(num_obs_tokens, start, None, reward_at, start + num_obs_tokens)
    if config.layout == "dt":
        return StepLayout(num_obs_tokens, start + 1, start, reward_at, start + 1 + num_obs_tokens)
    return StepLayout(num_obs_tokens, start, start + num_obs_tokens, reward_at, start + num_obs_tokens + 1)


class SegmentEmbedding(nn.Module):
    """Gives the tokens of segments and prompts.

    Args:
        config: of the model.
        observation_space: of one environment.
        action_space: of one environment.
        data: statistics of vector observations, or None to leave them as they are.
    """

    def __init__(
        self,
        config: SequenceFields,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        data: DataSummary | None,
    ) -> None:
        super().__init__()
        width, codes = config.width, config.layout == "mdt"
        self.obs = build_tokenizer(config, observation_space, data)
        self.layout = layout = step_layout(config, self.obs.num_tokens)
        self.action = ActionTokenizer(action_space, width)
        self.reward = RewardTokenizer(width, None if codes else config.reward_scale) if layout.reward_at else None
        codec = ReturnCodec(**config.return_codec.model_dump()) if codes else None
        self.return_to_go = None if layout.return_at is None else ReturnTokenizer(width, config.return_scale, codec)
        self.single_return = config.single_return_token
        by_timestep = config.position == "timestep"
        self.timestep = nn.Embedding(config.max_timestep, width) if by_timestep else None
        shape = (config.context_length, layout.num_tokens, width)
        self.position = None if by_timestep else nn.Parameter(torch.empty(shape).normal_(std=INIT_STD))
        self.prompt = PromptPosition(config, layout) if config.prompt_steps else None
        self.norm = (
            nn.Identity() if codes else nn.LayerNorm(width)
        )  # Chen et al. 2021 normalise; multi_game_dt does not
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: SegmentInputs) -> Tensor:
        """Gives the tokens (B, K, G, D) of a segment whose padding is on the right.

        Raises:
            ValueError: if it has more steps than there are positions.
        """
        none_yet_BK = inputs.timestep == 0
        parts = [self.action(inputs.previous_action, none_yet_BK).unsqueeze(2)]
        if self.reward is not None:
            parts.append(self.reward(inputs.previous_reward).unsqueeze(2))
        obs = self.obs_tokens(inputs.obs)
        if self.return_to_go is None:
            parts.append(obs)
        else:
            target = self.return_to_go(inputs.return_to_go).unsqueeze(2)
            if self.single_return:
                target = torch.cat((target[:, :1], torch.zeros_like(target[:, 1:])), 1)
            parts += [target, obs] if self.layout.obs_start > (self.layout.return_at or 0) else [obs, target]
        return self._finished(torch.cat(parts, 2) + self._positions(inputs.timestep))

    def prompt_tokens(self, prompt: PromptInputs) -> Tensor:
        """Gives the tokens of a prompt, steps and tokens flattened: return, observation and action of each step.

        The same maps as for segments, plus a vector that marks each place of a prompt's step. Differs from Xu et al.
        2022, who give prompts maps of their own.

        Raises:
            ValueError: if the model was built without prompts.
        """
        if self.prompt is None:
            raise ValueError("this model was built with prompt_steps=0: it takes no prompt")
        parts = [self.obs_tokens(prompt.obs), self.action(prompt.action, torch.zeros_like(prompt.valid)).unsqueeze(2)]
        if self.return_to_go is not None:
            parts.insert(0, self.return_to_go(prompt.return_to_go).unsqueeze(2))
        token_BPGD = torch.cat(parts, 2) + self.prompt(prompt.timestep.shape[1])
        if self.timestep is not None:
            token_BPGD = token_BPGD + self._timesteps(prompt.timestep)
        return self._finished(token_BPGD).flatten(1, 2)

    def obs_tokens(self, obs: Tensor) -> Tensor:
        """Gives the tokens (B, K, V, D) of observations (B, K, *O)."""
        return self.obs(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])

    def _positions(self, timestep_BK: Tensor) -> Tensor:
        if self.position is None:
            return self._timesteps(timestep_BK)
        num_steps = timestep_BK.shape[1]
        if num_steps > len(self.position):
            raise ValueError(f"a segment of {num_steps} steps exceeds context_length={len(self.position)}")
        return self.position[:num_steps]

    def _timesteps(self, timestep_BK: Tensor) -> Tensor:
        assert self.timestep is not None
        return self.timestep(timestep_BK.clamp(max=self.timestep.num_embeddings - 1)).unsqueeze(2)

    def _finished(self, token_BKGD: Tensor) -> Tensor:
        return self.dropout(self.norm(token_BKGD))


class PromptPosition(nn.Module):
    """Learned vectors for the places of a prompt: one for each token of a step, and under position=window of each step.

    Args:
        config: of the model.
        layout: of a segment's step; a prompt's step has its observation, its action and perhaps its return.
    """

    def __init__(self, config: SequenceFields, layout: StepLayout) -> None:
        super().__init__()
        self.num_steps = config.prompt_steps
        self.num_tokens = layout.num_obs_tokens + 1 + (layout.return_at is not None)
        steps = 1 if config.position == "timestep" else config.prompt_steps
        self.position = nn.Parameter(torch.empty(steps, self.num_tokens, config.width).normal_(std=INIT_STD))

    def forward(self, num_steps: int) -> Tensor:
        """Gives the vectors of a prompt's first steps, (steps or 1, tokens, D).

        Raises:
            ValueError: if the prompt is longer than `prompt_steps`.
        """
        if num_steps > self.num_steps:
            raise ValueError(f"a prompt of {num_steps} steps exceeds prompt_steps={self.num_steps}")
        return self.position[:num_steps]
