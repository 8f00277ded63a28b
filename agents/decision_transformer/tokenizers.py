"""From observations, actions, rewards and returns to tokens of the backbone's width.

Pixels become floats in [0, 1] here, once, in training and in evaluation alike.

Legend: N observations, B rows, K steps, C channels, H and W height and width, G tokens of an observation, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.base_config import MinatarCnnConfig, NatureCnnConfig
from agents.decision_transformer.part_configs import (
    AtariPatchTokenizerConfig,
    AutoTokenizerConfig,
    CnnTokenizerConfig,
    MinatarPatchTokenizerConfig,
    TokenizerConfig,
    VectorTokenizerConfig,
)
from agents.decision_transformer.returns import ReturnCodec
from agents.networks import build_body

if TYPE_CHECKING:
    from agents.decision_transformer.config import SequenceFields
    from memory.data_summary import DataSummary

INIT_STD = 0.02  # GPT-2, gpt-2/src/model.py; also of the position tables in google-research/multi_game_dt
MIN_STD = 1e-4  # entries of an observation that vary less than this in the data are only shifted
SMALL_SIDE = 28  # pixels; images with a smaller side are taken for grids such as MinAtar's
REWARD_IDS = 4  # 0 none, 1 positive, 2 terminal (never given), 3 negative: google-research/multi_game_dt


class VectorTokenizer(nn.Module):
    """One token: a linear map of the normalised vector. Source: Chen et al. 2021, gym/decision_transformer.

    Args:
        size: entries of an observation.
        width: D.
        mean: of each entry in the data; None leaves observations as they are.
        std: of each entry, beside `mean`.

    Raises:
        ValueError: if the statistics have another length.
    """

    num_tokens = 1
    mean: Tensor
    scale: Tensor

    def __init__(
        self, size: int, width: int, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
    ) -> None:
        super().__init__()
        if mean is not None and len(mean) != size:
            raise ValueError(f"the data's observations have {len(mean)} entries, the environment's {size}")
        mean_O = torch.zeros(size) if mean is None else torch.tensor(mean, dtype=torch.float32)
        std_O = torch.ones(size) if std is None else torch.tensor(std, dtype=torch.float32)
        self.register_buffer("mean", mean_O)
        self.register_buffer("scale", torch.where(std_O < MIN_STD, torch.ones_like(std_O), std_O))
        self.linear = nn.Linear(size, width)

    def forward(self, obs_NO: Tensor) -> Tensor:
        """Gives tokens (N, 1, D)."""
        return self.linear((obs_NO.float() - self.mean) / self.scale).unsqueeze(1)


class PatchTokenizer(nn.Module):
    """A token for each square patch of an image, by one linear map, plus a learned vector for the patch's place.

    Args:
        shape: CHW of an image.
        patch_size: side of a patch (pixels).
        width: D.
        pool: tokens left after averaging neighbours, or None for one a patch.

    Raises:
        ValueError: if patches do not tile the image.

    Source: google-research/multi_game_dt, the notebook's image embedding.
    """

    def __init__(self, shape: tuple[int, ...], patch_size: int, width: int, pool: int | None = None) -> None:
        super().__init__()
        channels, height, image_width = shape
        if height % patch_size or image_width % patch_size:
            raise ValueError(
                f"tokenizer.patch_size={patch_size} does not divide images of {height} x {image_width} pixels"
            )
        self.grid = (height // patch_size, image_width // patch_size)
        self.pooled_grid = None if pool is None else (2, 2) if pool == 4 else (1, pool)
        num_patches = self.grid[0] * self.grid[1]
        if pool is not None and pool > num_patches:
            raise ValueError(f"tokenizer.pool={pool} exceeds the {num_patches} patches of an image")
        self.num_tokens = num_patches if pool is None else pool
        self.conv = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty(num_patches, width).normal_(std=INIT_STD))

    def forward(self, obs_NCHW: Tensor) -> Tensor:
        """Gives tokens (N, G, D), the patches row by row."""
        patch_NDHW: Tensor = self.conv(obs_NCHW.float() / 255.0)
        token_NGD = patch_NDHW.flatten(2).transpose(1, 2) + self.position
        if self.pooled_grid is None:
            return token_NGD
        grid_NDHW = token_NGD.transpose(1, 2).reshape(len(token_NGD), -1, *self.grid)
        return F.adaptive_avg_pool2d(grid_NDHW, self.pooled_grid).flatten(2).transpose(1, 2)


class CnnTokenizer(nn.Module):
    """One token: a linear map of a convolutional network's features.

    Args:
        config: of the network.
        observation_space: uint8 images CHW.
        width: D.
    """

    num_tokens = 1

    def __init__(self, config: Any, observation_space: gymnasium.Space[Any], width: int) -> None:
        super().__init__()
        self.body = build_body(config, observation_space)
        self.linear = nn.Linear(self.body.num_features, width)

    def forward(self, obs_NCHW: Tensor) -> Tensor:
        """Gives tokens (N, 1, D)."""
        return self.linear(self.body(obs_NCHW)).unsqueeze(1)


ObservationTokenizer = VectorTokenizer | PatchTokenizer | CnnTokenizer


def build_tokenizer(
    config: SequenceFields, observation_space: gymnasium.Space[Any], data: DataSummary | None
) -> ObservationTokenizer:
    """Builds the tokenizer that a config asks for, `auto` being resolved.

    Raises:
        ValueError: if it does not fit the observations.
    """
    if not isinstance(observation_space, gymnasium.spaces.Box):
        raise ValueError(f"agents take Box observations, not {observation_space}")
    chosen = resolved(config.tokenizer, config.layout, observation_space)
    shape, images = observation_space.shape, is_image(observation_space)
    if isinstance(chosen, VectorTokenizerConfig) == images or (not images and len(shape) != 1):
        raise ValueError(
            f"tokenizer.kind={chosen.kind} does not take observations of shape {shape} and dtype "
            f"{observation_space.dtype}: vector takes vectors; atari_patch, minatar_patch and cnn take uint8 images CHW"
        )
    if isinstance(chosen, VectorTokenizerConfig):
        normalize = chosen.normalize and data is not None and data.obs_mean is not None
        statistics = (data.obs_mean, data.obs_std) if normalize and data is not None else (None, None)
        return VectorTokenizer(shape[0], config.width, *statistics)
    if isinstance(chosen, CnnTokenizerConfig):
        return CnnTokenizer(chosen.network, observation_space, config.width)
    return PatchTokenizer(shape, chosen.patch_size, config.width, chosen.pool)


def resolved(
    config: TokenizerConfig, layout: str, observation_space: gymnasium.spaces.Box
) -> VectorTokenizerConfig | AtariPatchTokenizerConfig | MinatarPatchTokenizerConfig | CnnTokenizerConfig:
    """Gives the tokenizer's config, with `auto` replaced by what suits observations and layout."""
    if not isinstance(config, AutoTokenizerConfig):
        return config
    if not is_image(observation_space):
        return VectorTokenizerConfig()
    small = min(observation_space.shape[1:]) < SMALL_SIDE
    if layout == "mdt":
        return MinatarPatchTokenizerConfig() if small else AtariPatchTokenizerConfig()
    return CnnTokenizerConfig(network=MinatarCnnConfig() if small else NatureCnnConfig())


def is_image(observation_space: gymnasium.spaces.Box) -> bool:
    """Whether observations are uint8 images CHW."""
    return len(observation_space.shape) == 3 and observation_space.dtype == np.uint8


class ActionTokenizer(nn.Module):
    """A token for an action: a vector for each index and one for "none yet", or a linear map of a vector in [-1, 1].

    Args:
        action_space: Discrete, or a Box of one dimension.
        width: D.
    """

    def __init__(self, action_space: gymnasium.Space[Any], width: int) -> None:
        super().__init__()
        self.table: nn.Embedding | None = None
        self.linear: nn.Linear | None = None
        if isinstance(action_space, gymnasium.spaces.Discrete):
            self.table = nn.Embedding(int(action_space.n) + 1, width)
        else:
            assert action_space.shape is not None
            self.linear = nn.Linear(action_space.shape[0], width)

    def forward(self, action: Tensor, none_yet_BK: Tensor) -> Tensor:
        """Gives tokens BKD.

        Args:
            action: (B, K) indices or (B, K, A) vectors.
            none_yet_BK: True at an episode's first step; the action there counts for nothing.
        """
        if self.table is not None:
            none_id = self.table.num_embeddings - 1
            return self.table(action.long().masked_fill(none_yet_BK, none_id))
        assert self.linear is not None
        return self.linear(action.float().masked_fill(none_yet_BK.unsqueeze(-1), 0.0))


class RewardTokenizer(nn.Module):
    """A token for the previous reward: linear in it, or one of REWARD_IDS vectors by its sign.

    Args:
        width: D.
        scale: reward that becomes 1, or None for vectors by sign.
    """

    def __init__(self, width: int, scale: float | None) -> None:
        super().__init__()
        self.scale = scale
        self.layer: nn.Module = nn.Embedding(REWARD_IDS, width) if scale is None else nn.Linear(1, width)

    def forward(self, reward_BK: Tensor) -> Tensor:
        """Gives tokens BKD."""
        if self.scale is None:
            return self.layer(reward_ids(reward_BK))
        return self.layer((reward_BK.float() / self.scale).unsqueeze(-1))


class ReturnTokenizer(nn.Module):
    """A token for the return to go: linear in it, or a vector for each bin of a codec.

    Args:
        width: D.
        scale: return that becomes 1 (used without a codec).
        codec: bins, or None for the linear map.
    """

    def __init__(self, width: int, scale: float, codec: ReturnCodec | None) -> None:
        super().__init__()
        self.scale, self.codec = scale, codec
        self.layer: nn.Module = nn.Linear(1, width) if codec is None else nn.Embedding(codec.bins, width)

    def forward(self, return_BK: Tensor) -> Tensor:
        """Gives tokens BKD."""
        if self.codec is not None:
            return self.layer(self.codec.encode(return_BK))
        return self.layer((return_BK.float() / self.scale).unsqueeze(-1))


def reward_ids(reward: Tensor) -> Tensor:
    """Gives int64 ids by the sign of rewards: 0 none, 1 positive, 3 negative. Source: google-research/multi_game_dt."""
    return torch.where(reward > 0, 1, torch.where(reward < 0, 3, 0))
