"""DrQ's augmentation of image batches: random shifts and a jitter of the intensity.

Legend: B batch, C frames of a stack, H height, W width.
Source: Kostrikov et al. 2021, section 3; Dopamine, labs/atari_100k/atari_100k_rainbow_agent.py, drq_image_augmentation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agents.heads import to_tensor

PAD = 4
"""Pixels by which an image is shifted at most, each way. Source: Kostrikov et al. 2021, section 3."""
JITTER = 0.05
"""Deviation of the factor of the intensity, whose normal is cut at two. Source: Dopamine, _intensity_aug."""


def shift(obs_BCHW: Tensor, down_B: Tensor, right_B: Tensor) -> Tensor:
    """Moves each image by whole pixels, its edges repeated: padding with edge values and a crop of the same size.

    Args:
        obs_BCHW: images.
        down_B: rows by which the crop lies below the image; negative is above.
        right_B: columns by which it lies to the right.

    Returns:
        BCHW of the same dtype, in memory of its own.
    """
    num, channels, height, width = obs_BCHW.shape
    device = obs_BCHW.device
    row_BH = (down_B[:, None] + torch.arange(height, device=device)).clamp(0, height - 1)
    column_BW = (right_B[:, None] + torch.arange(width, device=device)).clamp(0, width - 1)
    batch = torch.arange(num, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return obs_BCHW[batch, channel, row_BH[:, None, :, None], column_BW[:, None, None, :]]


def augment(obs_BCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Gives randomly shifted images times 1 + 0.05 * clip(normal, -2, 2), one shift and factor per stack.

    Args:
        obs_BCHW: uint8 images.
        rng: source of the shifts and factors.

    Returns:
        float32 images in [0, 280.5], to be divided by 255 like the bytes they came from.

    Source: see the module. Differs from Dopamine: shifts of -4 to 4 pixels, where its crop never reaches 4.
    """
    device, num = obs_BCHW.device, len(obs_BCHW)
    offset_2B = to_tensor(rng.integers(-PAD, PAD + 1, (2, num)), device)
    factor_B = to_tensor(1 + JITTER * np.clip(rng.standard_normal(num, dtype=np.float32), -2, 2), device)
    return shift(obs_BCHW, offset_2B[0], offset_2B[1]).float() * factor_B.view(-1, 1, 1, 1)
