"""Bodies: observation in, a float32 feature vector out. Heads that make agents of them are in `agents.heads`.

Pixels become floats in [0, 1] here, once, and images lie in memory with their channels innermost, which CPUs and GPUs
compute convolutions faster from. Under bfloat16 the body computes in bfloat16 from float32 parameters, and its features
come out as float32, so that heads, losses and optimizers never see the lower precision.

Legend: B batch, C channels, H height, W width, F features.
Source: the pixel networks follow Dopamine (jax/networks.py and labs/offline_rl/jax/networks.py) to the padding.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from agents.base_config import (
    ImpalaCnnConfig,
    Initialization,
    MinatarCnnConfig,
    MlpConfig,
    NatureCnnConfig,
    NetworkConfig,
)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By the name in the configs."""
IMPALA_CHANNELS = (16, 32, 32)  # Espeholt et al. 2018, figure 3
NORM_EPS = 1e-6  # Flax's default; PyTorch's is 1e-5
TRUNCATED_NORMAL_STD = 0.87962566103423978  # std of a unit normal cut at +-2 (Flax, nn.initializers.variance_scaling)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Gives the padding before and after an axis under which the output has ceil(size / stride) entries.

    Source: TensorFlow's and JAX's SAME. Differs from a symmetric padding in that the odd pixel goes to the end.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def initialize(module: nn.Module, initialization: Initialization, gain: float = 1.0) -> None:
    """Sets the weight and bias of one convolution or linear layer in place.

    Args:
        module: a layer with `weight` and `bias`.
        initialization: glorot (uniform), fan_in_uniform (uniform with variance 1 / (sqrt(3) * inputs)), orthogonal
            (times `gain`), all three with zero bias; or torch (left as built).
        gain: factor of the orthogonal initialisation.

    Source: of fan_in_uniform: Dopamine, jax/networks.py, RainbowNetwork.
    """
    assert isinstance(module, nn.Linear | nn.Conv2d)
    if initialization == "torch":
        return
    if initialization == "glorot":
        nn.init.xavier_uniform_(module.weight)
    elif initialization == "fan_in_uniform":
        bound = math.sqrt(math.sqrt(3.0) / module.weight[0].numel())  # a uniform variable's variance is bound^2 / 3
        nn.init.uniform_(module.weight, -bound, bound)
    else:
        nn.init.orthogonal_(module.weight, gain)
    assert module.bias is not None
    nn.init.zeros_(module.bias)


def lecun_normal_(weight: Tensor) -> None:
    """Fills a convolution weight from LeCun's normal truncated at two deviations, Flax's default initialiser."""
    fan_in = weight[0].numel()
    std = math.sqrt(1.0 / fan_in) / TRUNCATED_NORMAL_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Body(nn.Module):
    """Maps observations to features.

    Args:
        layers: the network, from floats to BF.
        num_features: F.
        pixels: whether observations are uint8 images to be divided by 255.
        precision: dtype the layers compute in.
    """

    def __init__(
        self,
        layers: nn.Module,
        num_features: int,
        *,
        pixels: bool,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.num_features = num_features
        self.pixels = pixels
        self.precision = precision
        if pixels:
            # torch's stub of Module.to lacks the memory_format overload
            self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, obs: Tensor) -> Tensor:
        """Gives float32 features BF of observations B..."""
        if self.pixels:
            # Moved while they are bytes, which takes half as long as moving and converting in one call. Integers up to
            # 255 are exact in bfloat16: converting before the division rounds once, as autocast would.
            x_BCHW = obs.contiguous(memory_format=torch.channels_last).to(self.precision, copy=True).div_(255.0)
        else:
            x_BCHW = obs.to(torch.float32)
        if self.precision is torch.float32:
            features_BF: Tensor = self.layers(x_BCHW)
            return features_BF
        with torch.autocast(obs.device.type, dtype=self.precision):
            features_BF = self.layers(x_BCHW)
        return features_BF.float()


class ChannelNorm(nn.LayerNorm):
    """Normalises the channels of each position, then scales and shifts each channel; BCHW in and out.

    Source: Gallici et al. 2024; purejaxql, pqn_atari.py, where Flax's LayerNorm takes the last axis of BHWC images.
    Differs from CleanRL's pqn_atari_envpool.py, which normalises over CHW with a scale for each entry.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gives the normalised images; their channels stay innermost in memory."""
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalAveragePool(nn.Module):
    """Gives the mean BC of each channel over the positions of BCHW images. Source: Sokar and Castro 2025."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gives the means BC."""
        return x_BCHW.mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """Adds ReLU, 3x3 convolution, ReLU, 3x3 convolution to its input.

    With `layer_norm` each ReLU sees normalised channels, and the input that is added does not: the full pre-activation
    of He et al. 2016 (Identity Mappings in Deep Residual Networks), figure 4e, with another norm.
    """

    def __init__(self, channels: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels) if layer_norm else nn.Identity()
        self.relu1 = nn.ReLU(inplace=layer_norm)  # in place it would change the input that is added
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = ChannelNorm(channels) if layer_norm else nn.Identity()
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            lecun_normal_(conv.weight)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gives the block's output, same shape as its input."""
        y_BCHW = self.conv1(self.relu1(self.norm1(x_BCHW)))
        z_BCHW: Tensor = self.conv2(self.relu2(self.norm2(y_BCHW)))
        return x_BCHW + z_BCHW


class ImpalaStack(nn.Module):
    """One IMPALA stack: 3x3 convolution, 3x3 max-pooling of stride 2 with SAME padding, two residual blocks."""

    def __init__(
        self, channels_in: int, channels_out: int, height: int, width: int, *, layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        initialize(self.conv, "glorot")
        # SAME pads (0, 1) at even sizes, which is ceil_mode without padding, and (1, 1) at odd ones.
        self.pool: nn.Module
        if height % 2 == width % 2 == 0:
            self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        elif height % 2 == width % 2 == 1:
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            pads = (*same_padding(width, 3, 2), *same_padding(height, 3, 2))
            self.pool = nn.Sequential(nn.ConstantPad2d(pads, -math.inf), nn.MaxPool2d(3, stride=2))
        self.block1 = ResidualBlock(channels_out, layer_norm=layer_norm)
        self.block2 = ResidualBlock(channels_out, layer_norm=layer_norm)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Gives the stack's output, half as high and wide (rounded up)."""
        y_BCHW: Tensor = self.block2(self.block1(self.pool(self.conv(x_BCHW))))
        return y_BCHW


def nature_cnn(config: NatureCnnConfig, shape: tuple[int, int, int]) -> tuple[nn.Sequential, int]:
    """Builds the Nature CNN for images CHW and gives it with its number of features.

    Source: Mnih et al. 2015, Methods; padding and initialisation as Dopamine, jax/networks.py, NatureDQNNetwork.

    Raises:
        ValueError: if the images are too small for the kernels.
    """
    channels, *sizes = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (filters, kernel, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1)), start=1):
        (top, bottom), (left, right) = (
            same_padding(size, kernel, stride) if config.padding == "same" else (0, 0) for size in sizes
        )
        symmetric = top == bottom and left == right
        if not symmetric:
            layers[f"pad{index}"] = nn.ZeroPad2d((left, right, top, bottom))
        conv = nn.Conv2d(channels, filters, kernel, stride, padding=(top, left) if symmetric else 0)
        initialize(conv, config.initialization, math.sqrt(2))
        layers[f"conv{index}"] = conv
        if config.layer_norm:
            layers[f"norm{index}"] = ChannelNorm(filters)
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        sizes = [(sizes[0] + top + bottom - kernel) // stride + 1, (sizes[1] + left + right - kernel) // stride + 1]
        channels = filters
        if min(sizes) < 1:
            raise ValueError(
                f"{shape[1]}x{shape[2]} images are too small for the Nature CNN (padding={config.padding})"
            )
    _flatten(layers, config.global_average_pooling)
    hidden = nn.Linear(channels * (1 if config.global_average_pooling else math.prod(sizes)), config.hidden_width)
    initialize(hidden, config.initialization, math.sqrt(2))
    layers["hidden"] = hidden
    if config.layer_norm:
        layers["norm"] = nn.LayerNorm(config.hidden_width, eps=NORM_EPS)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers), config.hidden_width


def impala_cnn(config: ImpalaCnnConfig, shape: tuple[int, int, int]) -> tuple[nn.Sequential, int]:
    """Builds the IMPALA ResNet for images CHW and gives it with its number of features.

    Source: Espeholt et al. 2018, figure 3; width, pooling and initialisation as Dopamine,
    labs/offline_rl/jax/networks.py (revision 81f695c). Obando-Ceron et al. 2024 print the Nature CNN's kernels in their
    table 4; that column is taken for a slip.
    """
    channels, height, width = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, base in enumerate(IMPALA_CHANNELS, start=1):
        stack = ImpalaStack(channels, base * config.width, height, width, layer_norm=config.layer_norm)
        layers[f"stack{index}"] = stack
        channels, height, width = base * config.width, math.ceil(height / 2), math.ceil(width / 2)
    num_features = config.hidden_width * (config.width if config.widen_hidden else 1)
    if config.layer_norm:
        layers["norm1"] = ChannelNorm(channels)
    layers["relu1"] = nn.ReLU()
    _flatten(layers, config.global_average_pooling)
    hidden = nn.Linear(channels * (1 if config.global_average_pooling else height * width), num_features)
    initialize(hidden, "glorot")
    layers["hidden"] = hidden
    if config.layer_norm:
        layers["norm2"] = nn.LayerNorm(num_features, eps=NORM_EPS)
    layers["relu2"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers), num_features


def _flatten(layers: OrderedDict[str, nn.Module], global_average_pooling: bool) -> None:
    """Adds what makes vectors of images: the mean of each channel, or every entry, channels outermost."""
    if global_average_pooling:
        layers["pool"] = GlobalAveragePool()
    else:
        layers["flatten"] = nn.Flatten()


def minatar_cnn(config: MinatarCnnConfig, shape: tuple[int, int, int]) -> tuple[nn.Sequential, int]:
    """Builds MinAtar's network for images CHW and gives it with its number of features, 128 times the width.

    One 3x3 convolution of stride 1 without padding, one dense layer, a ReLU after each.

    Source: Young and Tian 2019; kenjyoung/MinAtar, examples/dqn.py, QNetwork. Differs: the width.

    Raises:
        ValueError: if the images are smaller than the kernel.
    """
    channels, height, width = shape
    if min(height, width) < 3:
        raise ValueError(f"{height}x{width} images are too small for network.kind=minatar_cnn")
    filters, units = 16 * config.width, 128 * config.width
    conv = nn.Conv2d(channels, filters, 3)
    positions = 1 if config.global_average_pooling else (height - 2) * (width - 2)
    hidden = nn.Linear(filters * positions, units)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if config.layer_norm:
        layers["norm1"] = ChannelNorm(filters)
    layers["relu1"] = nn.ReLU(inplace=True)
    _flatten(layers, config.global_average_pooling)
    layers["hidden"] = hidden
    if config.layer_norm:
        layers["norm"] = nn.LayerNorm(units, eps=NORM_EPS)
    layers["relu"] = nn.ReLU(inplace=True)
    for layer in (conv, hidden):
        initialize(layer, config.initialization, math.sqrt(2))
    return nn.Sequential(layers), units


def mlp(config: MlpConfig, num_inputs: int) -> tuple[nn.Sequential, int]:
    """Builds the perceptron's hidden layers and gives them with their number of features."""
    activation: Callable[[], nn.Module] = nn.ReLU if config.activation == "relu" else nn.Tanh
    layers: list[nn.Module] = []
    for width in config.hidden_widths:
        linear = nn.Linear(num_inputs, width)
        initialize(linear, config.initialization, math.sqrt(2))
        norm = [nn.LayerNorm(width, eps=NORM_EPS)] if config.layer_norm else []
        layers += [linear, *norm, activation()]
        num_inputs = width
    return nn.Sequential(*layers), num_inputs


def build_body(
    config: NetworkConfig,
    observation_space: gymnasium.Space[Any],
    *,
    precision: torch.dtype = torch.float32,
) -> Body:
    """Builds the body a config asks for.

    Args:
        config: the network.
        observation_space: Box; uint8 images (C, H, W) for the CNNs, vectors for the perceptron.
        precision: dtype the body computes in.

    Raises:
        ValueError: if network and observations do not fit together.
    """
    if not isinstance(observation_space, gymnasium.spaces.Box):
        raise ValueError(f"agents take Box observations, not {observation_space}")
    shape = observation_space.shape
    if isinstance(config, MlpConfig):
        if len(shape) != 1:
            raise ValueError(
                f"network.kind=mlp takes vector observations, but these have shape {shape}: use a CNN (nature_cnn)"
            )
        if precision is not torch.float32:
            raise ValueError("precision=bf16 needs a convolutional network, not network.kind=mlp")
        layers, num_features = mlp(config, shape[0])
        return Body(layers, num_features, pixels=False)
    if len(shape) != 3 or observation_space.dtype != np.uint8:
        raise ValueError(
            f"network.kind={config.kind} takes uint8 images (channels, height, width), but these observations have "
            f"shape {shape} and dtype {observation_space.dtype}: use mlp"
        )
    if isinstance(config, NatureCnnConfig):
        build = nature_cnn(config, shape)
    elif isinstance(config, ImpalaCnnConfig):
        build = impala_cnn(config, shape)
    else:
        build = minatar_cnn(config, shape)
    return Body(*build, pixels=True, precision=precision)
