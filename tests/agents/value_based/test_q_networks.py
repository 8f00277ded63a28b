"""Heads of action values: noisy and dueling layers, atoms, quantiles, fractions."""

import copy
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from agents.base_config import ImpalaCnnConfig, MlpConfig, NatureCnnConfig
from agents.heads import DuelingHead, NoisyLinear
from agents.networks import build_body
from agents.value_based.q_networks import (
    CategoricalNetwork,
    ImplicitQuantileNetwork,
    QNetwork,
    QuantileNetwork,
    midpoints,
    split_body,
)

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (2, 24, 24), np.uint8)
OBS = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
OPTIONS: dict[str, Any] = {"initialization": "torch", "dueling": False}


@pytest.fixture(autouse=True)
def _seeded_weights() -> None:
    torch.manual_seed(0)


def body() -> Any:
    return build_body(MlpConfig(hidden_widths=(8, 6)), VECTOR)


def implicit(**changes: Any) -> ImplicitQuantileNetwork:
    return ImplicitQuantileNetwork(body(), 2, num_cosines=4, num_acting_fractions=3, **{**OPTIONS, **changes})


def test_noisy_layers_follow_the_equation() -> None:
    layer = NoisyLinear(2, 1, sigma=0.5)
    bound = 1 / math.sqrt(2)
    assert layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
    torch.testing.assert_close(layer.weight_sigma, torch.full((1, 2), 0.5 * bound))
    torch.testing.assert_close(layer.bias_sigma, torch.full((1,), 0.5 * bound))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(3.0)
    x_BI = torch.tensor([[1.0, 10.0]])
    assert layer(x_BI).item() == 24.0
    normal = np.random.default_rng(7).standard_normal(3, dtype=np.float32)
    one, two, out = (float(np.sign(value) * abs(value) ** 0.5) for value in normal)
    layer.draw(np.random.default_rng(7))
    sigma = 0.5 * bound
    expected = (1 + sigma * out * one) * 1 + (2 + sigma * out * two) * 10 + 3 + sigma * out
    assert layer(x_BI).item() == pytest.approx(expected, rel=1e-5)
    layer.forget()
    assert layer(x_BI).item() == 24.0


def test_noise_is_for_one_forward_and_from_the_generator_alone() -> None:
    network = QNetwork(body(), 2, **OPTIONS)
    network.make_noisy(0.5)
    assert sum(isinstance(layer, NoisyLinear) for layer in network.modules()) == 3
    assert not any(isinstance(layer, nn.Linear) for layer in network.modules())
    before = torch.get_rng_state()
    mean_BA = network(OBS)[0]
    rng = np.random.default_rng(1)
    first_BA, second_BA = network(OBS, rng=rng)[0], network(OBS, rng=rng)[0]
    assert not torch.equal(first_BA, second_BA) and not torch.equal(first_BA, mean_BA)
    assert torch.equal(network(OBS)[0], mean_BA) and torch.equal(
        network(OBS, rng=np.random.default_rng(1))[0], first_BA
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert copy.deepcopy(network)(OBS, rng=np.random.default_rng(1))[0].equal(first_BA)


def test_gradients_reach_means_and_deviations_of_the_noise() -> None:
    network = QNetwork(body(), 2, **OPTIONS)
    network.make_noisy(0.5)
    network(OBS, rng=np.random.default_rng(0))[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_dueling_heads_add_the_value_to_centred_advantages() -> None:
    head = DuelingHead(nn.Linear, 1, num_actions=2, num_outputs=2)
    assert isinstance(head.advantage, nn.Linear) and isinstance(head.value, nn.Linear)
    with torch.no_grad():
        head.advantage.weight.zero_()
        head.value.weight.zero_()
        head.advantage.bias.copy_(torch.tensor([1.0, 2.0, 5.0, 10.0]))  # actions (1, 2) and (5, 10)
        head.value.bias.copy_(torch.tensor([100.0, 200.0]))
    assert head(torch.zeros(1, 1)).tolist() == [[98.0, 196.0, 102.0, 204.0]]


@pytest.mark.parametrize("dueling", [False, True])
def test_categorical_values_are_the_means_of_the_atoms(dueling: bool) -> None:
    network = CategoricalNetwork(
        body(), 2, num_atoms=3, value_range=(-1.0, 3.0), initialization="torch", dueling=dueling
    )
    logit_BAK = network.distribution(OBS)
    assert logit_BAK.shape == (5, 2, 3) and network.atoms_K.tolist() == [-1.0, 1.0, 3.0]
    expected_BA = (logit_BAK.softmax(dim=2) * torch.tensor([-1.0, 1.0, 3.0])).sum(dim=2)
    torch.testing.assert_close(network(OBS)[0], expected_BA)


def test_quantile_values_are_means_at_midpoints() -> None:
    network = QuantileNetwork(body(), 2, num_quantiles=4, **OPTIONS)
    assert network.tau_1N.tolist() == [[0.125, 0.375, 0.625, 0.875]] == [midpoints(4).tolist()]
    torch.testing.assert_close(network(OBS)[0], network.distribution(OBS).mean(dim=2))


def test_implicit_quantiles_follow_the_equation() -> None:
    network = implicit()
    tau_BN = torch.tensor([[0.1, 0.9]]).repeat(5, 1)
    quantile_BAN = network.quantiles(OBS, tau_BN)
    assert quantile_BAN.shape == (5, 2, 2)
    features_F = network.body(torch.from_numpy(OBS))[2]
    assert isinstance(network.embedding, nn.Linear)
    for place, tau in enumerate((0.1, 0.9)):
        cosines = torch.tensor([math.cos(math.pi * i * tau) for i in (1, 2, 3, 4)])
        product_F = features_F * torch.relu(network.embedding(cosines))
        torch.testing.assert_close(quantile_BAN[2, :, place], network.head(network.hidden(product_F)))


def test_the_fractions_enter_before_the_last_dense_layer_of_every_network() -> None:
    for config, space, features in (
        (NatureCnnConfig(hidden_width=16), PIXELS, 3 * 3 * 64),
        (NatureCnnConfig(hidden_width=16, layer_norm=True), PIXELS, 3 * 3 * 64),
        (ImpalaCnnConfig(hidden_width=16), PIXELS, 3 * 3 * 32),
        (MlpConfig(hidden_widths=(8, 6)), VECTOR, 8),
    ):
        whole = build_body(config, space)
        obs = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, *(space.shape or ()))).astype(space.dtype))
        expected = whole(obs)
        encoder, hidden, num_features = split_body(whole)
        assert encoder.num_features == features and num_features == expected.shape[1]
        torch.testing.assert_close(hidden(encoder(obs)), expected)
    with pytest.raises(ValueError, match="dense layer after others"):
        split_body(build_body(MlpConfig(hidden_widths=(8,)), VECTOR))


def test_without_a_generator_fractions_are_midpoints() -> None:
    network = implicit()
    assert network.fractions(2, 2, None).tolist() == [[0.25, 0.75]] * 2
    drawn = network.fractions(100, 50, np.random.default_rng(0))
    assert drawn.shape == (100, 50) and drawn.min() >= 0 and drawn.max() < 1
    assert drawn.unique().numel() > 4000, "every row has fractions of its own"
    assert torch.equal(network(OBS)[0], network(OBS)[0])
    assert not torch.equal(network(OBS, rng=np.random.default_rng(0))[0], network(OBS)[0])


def test_augmented_images_survive_a_forward() -> None:
    network = QNetwork(build_body(NatureCnnConfig(hidden_width=16), PIXELS), 2, **OPTIONS)
    obs = torch.rand(3, 2, 24, 24).mul(255).contiguous(memory_format=torch.channels_last)
    before = obs.clone()
    network(obs)
    assert torch.equal(obs, before)
