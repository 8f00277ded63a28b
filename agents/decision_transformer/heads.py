"""From tokens to actions, returns and rewards.

Legend: B rows, K steps, G tokens of a step, A actions (number of discrete ones, or entries of a vector), R bins of the
return, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import torch
from torch import Tensor, nn

from agents.decision_transformer.tokenizers import REWARD_IDS
from agents.interface import require_bounded

if TYPE_CHECKING:
    from agents.decision_transformer.config import SequenceFields
    from agents.decision_transformer.embedding import StepLayout


class Outputs(NamedTuple):
    """What a model says about each step of a segment; float32.

    Attributes:
        action: (B, K, A), logits of discrete actions, or the action in [-1, 1].
        return_logits: (B, K, R) over the bins of the return from each step on, made without knowing it; or None.
        reward_logits: (B, K, 4) over the ids (`tokenizers.reward_ids`) of the reward BEFORE each step; or None.
        usage: statistics of the memory by name, empty unless asked for.
        slot_share_BM: how each row's reads spread over the slots, or None.
    """

    action: Tensor
    return_logits: Tensor | None
    reward_logits: Tensor | None
    usage: dict[str, Tensor]
    slot_share_BM: Tensor | None = None


class Heads(nn.Module):
    """Linear heads, each on one token of a step.

    Args:
        config: of the model.
        action_space: Discrete, or a bounded Box of one dimension.
        layout: of a step's tokens.

    Raises:
        ValueError: for another action space.
    """

    def __init__(self, config: SequenceFields, action_space: gymnasium.Space[Any], layout: StepLayout) -> None:
        super().__init__()
        self.layout = layout
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        self.action = nn.Linear(config.width, num_action_outputs(action_space))
        prediction = config.return_prediction
        self.return_to_go = None if prediction is None else nn.Linear(config.width, prediction.bins)
        self.reward = nn.Linear(config.width, REWARD_IDS) if config.reward_prediction else None

    def forward(self, token_BKGD: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gives actions BKA, return logits BKR and reward logits (B, K, 4), float32; None for what is not predicted.

        The action is read at a step's last token, the return at the last of its observation tokens, the previous reward
        at the previous action's token. Source: google-research/multi_game_dt; for vectors Chen et al. 2021, whose
        actions pass a tanh too.
        """
        action_BKA = self.action(token_BKGD[:, :, self.layout.action_from]).float()
        if not self.discrete:
            action_BKA = torch.tanh(action_BKA)
        return_logits = reward_logits = None
        if self.return_to_go is not None:
            return_logits = self.return_to_go(token_BKGD[:, :, self.layout.return_from]).float()
        if self.reward is not None:
            reward_logits = self.reward(token_BKGD[:, :, 0]).float()
        return action_BKA, return_logits, reward_logits


def num_action_outputs(action_space: gymnasium.Space[Any]) -> int:
    """Gives the number of discrete actions, or of entries of an action vector.

    Raises:
        ValueError: if the space is neither Discrete nor a bounded Box of one dimension.
    """
    if isinstance(action_space, gymnasium.spaces.Discrete):
        return int(action_space.n)
    return require_bounded(action_space).shape[0]
