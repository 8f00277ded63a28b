"""Shapes, parameter counts, paddings and initialisations against the papers and an explicit reference."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from agents.base_config import ImpalaCnnConfig, MinatarCnnConfig, MlpConfig, NatureCnnConfig
from agents.heads import GaussianActor, HeadedNetwork, SharedBody, ValueNetwork, to_tensor
from agents.networks import ChannelNorm, GlobalAveragePool, ImpalaStack, build_body, lecun_normal_, same_padding

PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)


def q_network(config: Any, **layout: Any) -> HeadedNetwork:
    torch.manual_seed(0)
    return HeadedNetwork(build_body(config, PIXELS, **layout), 6, config.initialization)


def num_prunable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def random_pixels(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("config", "features_in", "prunable"),
    [
        (NatureCnnConfig(), 7744, 4_045_824),
        (NatureCnnConfig(padding="valid"), 3136, 8192 + 32768 + 36864 + 3136 * 512 + 3072),
        (ImpalaCnnConfig(), 3872, 2_082_880),
        (ImpalaCnnConfig(width=3), 11616, 6_823_104),
        (ImpalaCnnConfig(width=5), 19360, 12_337_472),
        (NatureCnnConfig(global_average_pooling=True), 64, 4_045_824 - (7744 - 64) * 512),
        (ImpalaCnnConfig(global_average_pooling=True), 32, 2_082_880 - (3872 - 32) * 512),
        (ImpalaCnnConfig(width=5, global_average_pooling=True), 160, 12_337_472 - (19360 - 160) * 512),
        (NatureCnnConfig(layer_norm=True), 7744, 4_045_824),
        (ImpalaCnnConfig(width=3, layer_norm=True), 11616, 6_823_104),
    ],
)
def test_flatten_sizes_and_prunable_weights(config: Any, features_in: int, prunable: int) -> None:
    """Source: Dopamine's networks; the counts with 6 actions are those of Obando-Ceron et al. 2024's setting."""
    network = q_network(config)
    hidden: Any = network.body.layers.hidden
    assert hidden.in_features == features_in
    assert num_prunable(network) == prunable
    q_BA, state = network(random_pixels())
    assert q_BA.shape == (2, 6) and q_BA.dtype == torch.float32 and state is None


GRID = gymnasium.spaces.Box(0, 255, (4, 10, 10), np.uint8)


@pytest.mark.parametrize(
    ("config", "features_in", "prunable"),
    [
        (MinatarCnnConfig(), 1024, 16 * 4 * 9 + 1024 * 128 + 128 * 6),
        (MinatarCnnConfig(width=4), 4096, 64 * 4 * 9 + 4096 * 512 + 512 * 6),
        (MinatarCnnConfig(global_average_pooling=True), 16, 16 * 4 * 9 + 16 * 128 + 128 * 6),
        (MinatarCnnConfig(width=2, layer_norm=True), 2048, 32 * 4 * 9 + 2048 * 256 + 256 * 6),
    ],
)
def test_minatars_network_and_its_widths(config: MinatarCnnConfig, features_in: int, prunable: int) -> None:
    """Source: kenjyoung/MinAtar, examples/dqn.py: 16 filters of 3x3 over 10x10, then 128 units."""
    network = HeadedNetwork(build_body(config, GRID), 6, config.initialization)
    hidden: Any = network.body.layers.hidden
    assert (hidden.in_features, hidden.out_features) == (features_in, 128 * config.width)
    assert num_prunable(network) == prunable
    obs = torch.randint(0, 256, (2, 4, 10, 10), dtype=torch.uint8)
    q_BA, _ = network(obs)
    assert q_BA.shape == (2, 6) and q_BA.dtype == torch.float32


def test_minatars_network_is_its_authors() -> None:
    network = HeadedNetwork(build_body(MinatarCnnConfig(), GRID), 6, "torch")
    layers: Any = network.body.layers
    obs = torch.randint(0, 256, (3, 4, 10, 10), dtype=torch.uint8)
    features = functional.relu(functional.conv2d(obs / 255.0, layers.conv.weight, layers.conv.bias))
    features = functional.relu(layers.hidden(features.flatten(1)))
    torch.testing.assert_close(network(obs)[0], network.head(features))


def test_minatars_network_needs_three_pixels() -> None:
    with pytest.raises(ValueError, match=r"2x10 images are too small for network\.kind=minatar_cnn"):
        build_body(MinatarCnnConfig(), gymnasium.spaces.Box(0, 255, (4, 2, 10), np.uint8))


def test_a_widened_dense_layer_is_an_option() -> None:
    assert q_network(ImpalaCnnConfig(width=2, widen_hidden=True)).head.in_features == 1024


@pytest.mark.parametrize(
    ("config", "norms"),
    [
        (NatureCnnConfig(layer_norm=True), [32, 64, 64, 512]),
        # in each stack two blocks of two, then the one after the stacks, then that of the dense layer
        (ImpalaCnnConfig(width=2, layer_norm=True), [32] * 4 + [64] * 4 + [64] * 4 + [64, 512]),
    ],
)
def test_layer_norm_adds_a_scale_and_a_shift_for_each_channel(config: Any, norms: list[int]) -> None:
    plain = q_network(config.model_copy(update={"layer_norm": False}))
    normed = q_network(config)
    assert [m.normalized_shape[0] for m in normed.modules() if isinstance(m, nn.LayerNorm)] == norms
    difference = sum(p.numel() for p in normed.parameters()) - sum(p.numel() for p in plain.parameters())
    assert difference == 2 * sum(norms)
    assert all(m.eps == 1e-6 for m in normed.modules() if isinstance(m, nn.LayerNorm))


@pytest.mark.parametrize("config", [NatureCnnConfig(layer_norm=True), ImpalaCnnConfig(layer_norm=True)])
def test_every_relu_sees_normalised_channels(config: Any) -> None:
    network = q_network(config)
    means: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].detach().mean(dim=1)))
    network(random_pixels())
    assert len(means) == sum(isinstance(module, nn.LayerNorm) for module in network.modules())
    for mean in means:
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)


def test_channel_norm_equals_the_formula() -> None:
    norm = ChannelNorm(3)
    x = torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
    centred = x - x.mean(dim=1, keepdim=True)
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    expected = expected * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) + torch.tensor([0.5, 0.0, -0.5]).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(norm(x), expected)


def test_layer_norm_of_a_perceptron_stands_before_the_activation() -> None:
    layers = build_body(MlpConfig(hidden_widths=(5, 7), layer_norm=True), VECTOR).layers
    kinds = [type(layer) for layer in layers.children()]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ReLU] * 2


def test_global_average_pooling_gives_the_mean_of_each_channel() -> None:
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert GlobalAveragePool()(x).tolist() == [[2.5, 8.5]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (84, 8, 4, (2, 2)),
        (21, 4, 2, (1, 2)),
        (11, 3, 1, (1, 1)),
        (84, 3, 2, (0, 1)),
        (42, 3, 2, (0, 1)),
        (21, 3, 2, (1, 1)),
    ],
)
def test_same_padding_of_the_axes_in_use(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_nature_cnn_equals_an_explicitly_padded_reference() -> None:
    network = q_network(NatureCnnConfig())
    convs = [layer for layer in network.body.layers.modules() if isinstance(layer, nn.Conv2d)]
    x = random_pixels().float() / 255
    for conv, (before, after), stride in zip(convs, ((2, 2), (1, 2), (1, 1)), (4, 2, 1), strict=True):
        padded = functional.pad(x, (before, after, before, after))
        x = functional.conv2d(padded, conv.weight, conv.bias, stride).relu()
    hidden: Any = network.body.layers.hidden
    expected = functional.linear(
        functional.linear(x.flatten(1), hidden.weight, hidden.bias).relu(), network.head.weight
    )
    torch.testing.assert_close(network(random_pixels())[0], expected)


@pytest.mark.parametrize(("size", "padding"), [(84, (0, 1)), (42, (0, 1)), (21, (1, 1))])
def test_impala_pooling_equals_an_explicitly_padded_reference(size: int, padding: tuple[int, int]) -> None:
    stack = ImpalaStack(2, 3, size, size)
    x = torch.randn(1, 3, size, size)
    expected = functional.max_pool2d(functional.pad(x, padding * 2, value=-math.inf), 3, 2)
    torch.testing.assert_close(stack.pool(x), expected)
    assert stack(torch.randn(1, 2, size, size)).shape[-1] == math.ceil(size / 2)


def test_impala_residual_block_adds_its_input_unchanged() -> None:
    block = ImpalaStack(2, 3, 84, 84).block1
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(block(x), x)


def test_initialisation_bounds() -> None:
    network = q_network(NatureCnnConfig())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            receptive = layer.weight[0, 0].numel() if layer.weight.ndim > 2 else 1
            bound = math.sqrt(6 / (receptive * (layer.weight.shape[0] + layer.weight.shape[1])))
            assert layer.weight.abs().max() <= bound and layer.weight.abs().max() > 0.95 * bound
            assert layer.bias is not None and not layer.bias.any()
    weight = torch.empty(64, 16, 3, 3)
    lecun_normal_(weight)
    assert float(weight.std()) == pytest.approx(math.sqrt(1 / 144), rel=0.03)
    assert float(weight.abs().max()) <= 2 * math.sqrt(1 / 144) / 0.8796


def test_fan_in_uniform_is_dopamines_variance_scaling() -> None:
    """scale = 1 / sqrt(3), mode fan_in, uniform: a bound of sqrt(3 * scale / fan_in)."""
    network = q_network(NatureCnnConfig(initialization="fan_in_uniform"))
    fans = {"conv1": 256, "conv2": 512, "conv3": 576, "hidden": 7744}
    for name, layer in (*network.body.layers.named_children(), ("head", network.head)):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = math.sqrt(3 / math.sqrt(3) / fans.get(name, 512))
            assert 0.95 * bound < float(layer.weight.detach().abs().max()) <= bound
            assert layer.bias is not None and not layer.bias.any()


def test_pixels_are_divided_by_255_exactly_once() -> None:
    network = q_network(NatureCnnConfig())
    seen: list[torch.Tensor] = []
    network.body.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.full((1, 4, 84, 84), 255, dtype=torch.uint8)
    pixels[0, 0, 0, 0] = 51
    network(pixels)
    assert seen[0].dtype == torch.float32 and float(seen[0].max()) == 1.0 and float(seen[0].min()) == pytest.approx(0.2)
    assert int(pixels.max()) == 255


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("config", [NatureCnnConfig(), ImpalaCnnConfig()])
def test_images_and_weights_have_channels_innermost(config: Any, layer_norm: bool) -> None:
    body = build_body(config.model_copy(update={"layer_norm": layer_norm}), PIXELS)
    layers = body.layers
    seen: list[torch.Tensor] = []
    layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for module in layers.modules():
        if isinstance(module, nn.Conv2d | ChannelNorm):
            if isinstance(module, nn.Conv2d):
                assert module.weight.is_contiguous(memory_format=torch.channels_last)
            module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    body(random_pixels())
    assert len(seen) > 3 and all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


@pytest.mark.parametrize(
    "config",
    [
        NatureCnnConfig(),
        ImpalaCnnConfig(),
        NatureCnnConfig(layer_norm=True),
        ImpalaCnnConfig(layer_norm=True, global_average_pooling=True),
    ],
)
def test_bfloat16_is_close_and_leaves_parameters_and_head_in_float32(config: Any) -> None:
    exact, rounded = q_network(config), q_network(config, precision=torch.bfloat16)
    q_BA = rounded(random_pixels())[0]
    assert q_BA.dtype == torch.float32
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.float32}
    expected_BA = exact(random_pixels())[0].detach()
    assert not torch.equal(q_BA, expected_BA)
    torch.testing.assert_close(q_BA.detach(), expected_BA, atol=0.02 * float(expected_BA.abs().max()), rtol=0.05)
    q_BA.sum().backward()
    assert {p.grad.dtype for p in rounded.parameters() if p.grad is not None} == {torch.float32}


def test_images_of_other_sizes_build_too() -> None:
    space = gymnasium.spaces.Box(0, 255, (2, 40, 44), np.uint8)
    pooled = (NatureCnnConfig(global_average_pooling=True), ImpalaCnnConfig(global_average_pooling=True))
    for config in (NatureCnnConfig(), NatureCnnConfig(padding="valid"), ImpalaCnnConfig(), *pooled):
        assert build_body(config, space)(torch.zeros(1, 2, 40, 44, dtype=torch.uint8)).shape == (1, 512)


@pytest.mark.parametrize(
    ("config", "space", "message"),
    [
        (NatureCnnConfig(), VECTOR, r"nature_cnn takes uint8 images.*\(3,\)"),
        (ImpalaCnnConfig(), gymnasium.spaces.Box(0, 1, (4, 84, 84), np.float32), "float32"),
        (MlpConfig(), PIXELS, r"mlp takes vector observations.*\(4, 84, 84\)"),
        (MlpConfig(), gymnasium.spaces.Discrete(3), r"Discrete\(3\)"),
        (NatureCnnConfig(padding="valid"), gymnasium.spaces.Box(0, 255, (4, 20, 20), np.uint8), "20x20"),
    ],
)
def test_networks_that_do_not_fit_are_refused(config: Any, space: gymnasium.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_body(config, space)


def test_perceptrons_compute_in_float32_only() -> None:
    with pytest.raises(ValueError, match="convolutional"):
        build_body(MlpConfig(), VECTOR, precision=torch.bfloat16)


def test_mlp_takes_float64_and_builds_as_told() -> None:
    body = build_body(MlpConfig(hidden_widths=(5, 7), activation="tanh", initialization="orthogonal"), VECTOR)
    assert body(torch.ones(2, 3, dtype=torch.float64)).shape == (2, 7)
    weight = next(body.parameters()).detach()
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(3), atol=1e-5, rtol=0)  # gain sqrt(2)


def test_gaussian_actor_clamps_and_shares_its_deviation() -> None:
    actor = GaussianActor(build_body(MlpConfig(), VECTOR), 2, "torch", log_std=5.0, log_std_range=(-1.0, 1.0))
    (mean_BA, std_BA), _ = actor(np.zeros((4, 3), np.float32))
    assert mean_BA.shape == std_BA.shape == (4, 2) and float(std_BA.detach().max()) == pytest.approx(math.e)


def test_to_tensor_shares_writeable_arrays_and_copies_others() -> None:
    array = np.zeros(3, np.float32)
    assert to_tensor(array, torch.device("cpu")).data_ptr() == array.ctypes.data
    array.flags.writeable = False
    assert to_tensor(array, torch.device("cpu")).data_ptr() != array.ctypes.data


def test_a_shared_body_is_computed_once_for_actor_and_critic_and_never_stale() -> None:
    body = build_body(MlpConfig(), VECTOR)
    calls: list[int] = []
    body.layers.register_forward_hook(lambda *_: calls.append(1))
    shared = SharedBody(body)
    actor, critic = HeadedNetwork(shared, 2, "torch"), ValueNetwork(shared)
    obs = torch.randn(4, 3)
    (actor(obs)[0].sum() + critic(obs).sum()).backward()
    assert len(calls) == 1
    actor(obs)  # would be handed to the critic, but the parameters move in between
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(critic(obs), critic.head(body(obs)))
    with torch.no_grad():
        actor(obs)
    assert critic(obs).requires_grad
    actor(obs)
    before = len(calls)
    shared.forget()
    critic(obs)
    assert len(calls) == before + 1
