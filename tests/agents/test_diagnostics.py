"""Dormant units, effective rank, norms, gradient cosines and filter images against numbers worked out by hand."""

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents import diagnostics
from agents.base_config import ImpalaCnnConfig, MlpConfig, NatureCnnConfig
from agents.diagnostics import (
    NEGATIVE,
    POSITIVE,
    SEPARATOR,
    ZERO,
    cosine_matrix,
    effective_rank,
    filter_image,
    first_filters,
    measure,
    num_dormant,
    off_diagonal,
    parameter_norm,
    value_network,
)
from agents.heads import HeadedNetwork
from agents.networks import Body, build_body
from agents.scripted import RandomAgent
from agents.value_based.config import DQNConfig
from agents.value_based.distributional_config import C51Config, IQNConfig, QRDQNConfig
from memory.config import ReplayConfig
from memory.replay import Replay

VECTOR = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (4, 36, 36), np.uint8)
ACTIONS = gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 1), (0.025, 2), (0.1, 3), (4.0, 4)])
def test_dormant_units_are_those_far_below_the_mean_of_their_layer(threshold: float, expected: int) -> None:
    activity_U = torch.tensor([0.0, 0.02, 0.09, 3.89])  # mean 1
    assert num_dormant(activity_U, threshold) == expected
    assert num_dormant(1000 * activity_U, threshold) == expected


def test_a_layer_without_any_activity_is_all_dormant() -> None:
    assert num_dormant(torch.zeros(5), 0.0) == 5


@pytest.mark.parametrize(("delta", "expected"), [(0.6, 1), (0.3, 2), (0.1, 3), (0.01, 4), (0.001, 5)])
def test_effective_rank_of_known_singular_values(delta: float, expected: int) -> None:
    """Shares of the sum: 0.5, 0.8, 0.95, 0.995, 1."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 5)))[0] for size in (20, 7))
    features_BF = left @ np.diag([50.0, 30.0, 15.0, 4.5, 0.5]) @ right.T
    assert effective_rank(torch.from_numpy(features_BF), delta) == expected
    assert effective_rank(torch.from_numpy(3.0 * features_BF).float(), delta) == expected


def test_effective_rank_of_one_direction_of_none_and_of_all() -> None:
    assert effective_rank(torch.ones(10, 4)) == 1
    assert effective_rank(torch.zeros(10, 4)) == 0
    assert effective_rank(torch.eye(10)) == 10
    with pytest.raises(ValueError, match="not finite"):
        effective_rank(torch.tensor([[1.0, torch.nan]]))


def test_parameter_norm_counts_biases() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
        layer.bias.fill_(12.0)
    assert parameter_norm(layer) == pytest.approx(13.0)


@pytest.mark.parametrize("num_held", [1, 2, 3, 5, 9])
def test_cosines_of_aligned_opposite_orthogonal_and_zero_vectors(num_held: int) -> None:
    vectors = torch.tensor([[1.0, 0, 0], [5.0, 0, 0], [-2.0, 0, 0], [0, 3.0, 0], [0, 0, 0]])
    expected = [[1, 1, -1, 0, 0], [1, 1, -1, 0, 0], [-1, -1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(cosine_matrix(lambda index: vectors[index], 5, num_held), expected, atol=1e-7)


def test_off_diagonal_leaves_out_the_diagonal() -> None:
    assert off_diagonal(np.arange(9).reshape(3, 3)).tolist() == [1, 2, 3, 5, 6, 7]


def test_filters_are_drawn_with_exact_zeros_apart() -> None:
    weight_OIHW = np.array([[[[2.0, 0.0]], [[-2.0, 1e-9]]]])  # one filter, two inputs, 1 x 2
    image = filter_image(weight_OIHW)
    side = image.shape[0] // 3
    assert image.dtype == np.uint8 and image.shape == (3 * side, 6 * side, 3)
    pixels = image[side // 2 :: side, side // 2 :: side]
    assert [tuple(pixel) for pixel in pixels[1]] == [SEPARATOR, POSITIVE, ZERO, NEGATIVE, (255, 255, 255), SEPARATOR]
    assert (pixels[[0, 2]] == SEPARATOR).all()


def test_filters_of_a_whole_layer_make_a_grid_and_a_layer_of_zeros_is_black() -> None:
    image = filter_image(np.zeros((32, 4, 8, 8)))
    assert image.shape == (5 * 100, 5 * 100, 3)  # 11 rows and 3 columns of tiles of 8 x 32, 5 times as large
    colours = {tuple(colour) for colour in image.reshape(-1, 3)}
    assert colours == {ZERO, SEPARATOR}


# ---------------------------------------------------------------------- measuring


def replay_of(obs: np.ndarray, action: np.ndarray, reward: np.ndarray, space: Any = VECTOR) -> Replay:
    replay: Replay = ReplayConfig(capacity=len(obs), frames="full").build(
        space, ACTIONS, num_envs=1, rng=np.random.default_rng(0), log=lambda message: None
    )
    for index in range(len(obs)):
        over = np.ones(1, bool)
        replay.add_step(
            obs=obs[index : index + 1],
            act=action[index : index + 1],
            rew=reward[index : index + 1],
            terminated=over,
            truncated=~over,
            obs_next=obs[index : index + 1],
            episode_over=over,
        )
    return replay


class Learner:
    """Measures the rewards as targets; the gradient of a transition's loss points up for action 0 and down for 1."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._algorithm = SimpleNamespace(policy=SimpleNamespace(model=network))

    def sample_targets(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(replay.rew[indices])

    def sample_losses(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        q_BA = self.network(replay[indices].obs)[0]
        return q_BA[:, 0] * torch.from_numpy(1.0 - 2.0 * replay.act[indices])


class Blind:
    """Has a network but neither targets nor losses to offer."""

    def __init__(self, network: nn.Module) -> None:
        self._algorithm = SimpleNamespace(policy=SimpleNamespace(model=network))


def constructed_network() -> HeadedNetwork:
    """Four hidden units with activations 3, 0.96, 0.04 and 0 on observations of ones: scores 3, 0.96, 0.04 and 0."""
    hidden = nn.Linear(2, 4)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 2.0], [0.96, 0.0], [0.0, 0.04], [-1.0, 0.0]]))
        hidden.bias.zero_()
    network = HeadedNetwork(Body(nn.Sequential(hidden, nn.ReLU(inplace=True)), 4, pixels=False), 2, "torch")
    return network


def ones_replay(actions: list[int], rewards: list[float]) -> Replay:
    return replay_of(np.ones((len(actions), 2), np.float32), np.array(actions), np.array(rewards))


def test_a_constructed_network_is_measured_as_worked_out_by_hand() -> None:
    network = constructed_network()
    agent: Any = Learner(network)
    replay = ones_replay([0] * 10, [1.0] * 10)
    values = measure(agent, replay, np.random.default_rng(0))
    assert values["dormant_share_0"] == 0.25
    assert values["dormant_share_0.025"] == 0.25
    assert values["dormant_share_0.1"] == 0.5
    assert values["effective_rank"] == 1.0
    assert values["parameter_norm"] == pytest.approx(
        float(torch.cat([parameter.flatten() for parameter in network.parameters()]).detach().norm())
    )
    assert values["target_variance"] == 0.0
    assert values["gradient_cosine"] == pytest.approx(1.0)
    assert values["gradient_cosine_abs"] == pytest.approx(1.0)


def test_opposite_gradients_cancel_in_the_mean_but_not_in_the_absolute_one(monkeypatch: pytest.MonkeyPatch) -> None:
    agent: Any = Learner(constructed_network())
    replay = ones_replay([0, 1], [-1.0, 1.0])
    for numbers in (2**26, 1):  # all gradients held at once, and one at a time
        monkeypatch.setattr(diagnostics, "GRADIENT_NUMBERS", numbers)
        rng = np.random.default_rng(1)
        values = measure(agent, replay, rng)
        indices = replay.ring.draw(np.random.default_rng(1), diagnostics.NUM_STATES)
        signs = 1.0 - 2.0 * replay.act[indices[: diagnostics.NUM_GRADIENTS]]
        expected = off_diagonal(np.outer(signs, signs)).mean()
        assert values["gradient_cosine"] == pytest.approx(expected, abs=1e-6) and abs(expected) < 0.2
        assert values["gradient_cosine_abs"] == pytest.approx(1.0)
        assert values["target_variance"] == pytest.approx(np.var(replay.rew[indices]))


def test_measuring_leaves_no_trace() -> None:
    network = constructed_network()
    agent: Any = Learner(network)
    replay = ones_replay([0, 1], [0.0, 1.0])
    before = [parameter.detach().clone() for parameter in network.parameters()]
    generator = torch.get_rng_state()
    measure(agent, replay, np.random.default_rng(0))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_equal_generators_give_equal_values() -> None:
    agent: Any = Learner(constructed_network())
    replay = ones_replay([0, 1, 1], [0.0, 1.0, 2.0])
    first, second, other = (measure(agent, replay, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == second != other


MLP = MlpConfig(hidden_widths=(8, 8))


@pytest.mark.parametrize(
    "config",
    [
        DQNConfig(network=MLP),
        DQNConfig(network=MLP, double=True, dueling=True, n_step=3),
        C51Config(network=MLP, noisy=True),
        QRDQNConfig(network=MLP),
        IQNConfig(network=MLP, munchausen=True),
    ],
    ids=["dqn", "dueling", "noisy_c51", "qr_dqn", "munchausen_iqn"],
)
def test_every_value_based_agent_is_measured_wholly_and_not_changed(config: Any) -> None:
    agent = config.build(VECTOR, ACTIONS, device="cpu", seed=np.random.SeedSequence(0))
    rng = np.random.default_rng(0)
    replay = replay_of(rng.normal(size=(50, 2)).astype(np.float32), rng.integers(2, size=50), rng.normal(size=50))
    counters = agent.counters()
    weights = {name: tensor.clone() for name, tensor in agent.weights().items()}
    values = measure(agent, replay, np.random.default_rng(0))
    assert len(values) == 8 and all(np.isfinite(value) for value in values.values())
    assert 0 <= values["dormant_share_0"] <= values["dormant_share_0.1"] <= 1
    assert 1 <= values["effective_rank"] <= 8
    assert values["target_variance"] > 0
    assert -1 <= values["gradient_cosine"] <= values["gradient_cosine_abs"] <= 1
    assert agent.counters() == counters
    assert all(torch.equal(tensor, weights[name]) for name, tensor in agent.weights().items())
    assert values == measure(agent, replay, np.random.default_rng(0))


def test_the_target_variance_of_dqn_is_that_of_its_regression_targets() -> None:
    """Every transition ends its episode: the targets are the rewards."""
    agent = DQNConfig(network=MLP).build(VECTOR, ACTIONS, device="cpu", seed=np.random.SeedSequence(0))
    replay = ones_replay([0, 1, 0], [1.0, 2.0, 6.0])
    values = measure(agent, replay, np.random.default_rng(0))
    indices = replay.ring.draw(np.random.default_rng(0), diagnostics.NUM_STATES)
    assert values["target_variance"] == pytest.approx(np.var(replay.rew[indices]), rel=1e-5)


def test_agents_without_losses_of_their_own_are_measured_in_part() -> None:
    agent: Any = Blind(constructed_network())
    values = measure(agent, ones_replay([0], [0.0]), np.random.default_rng(0))
    assert set(values) == {
        "dormant_share_0",
        "dormant_share_0.025",
        "dormant_share_0.1",
        "effective_rank",
        "parameter_norm",
    }


def test_agents_without_a_value_network_and_empty_replays_are_not_measured() -> None:
    random = RandomAgent(observation_space=VECTOR, action_space=ACTIONS, rng=np.random.default_rng(0))
    assert value_network(random) is None and first_filters(random) is None
    assert measure(random, ones_replay([0], [0.0]), np.random.default_rng(0)) == {}
    agent: Any = Learner(constructed_network())
    replay = ones_replay([0], [0.0])
    replay.reset()
    assert measure(agent, replay, np.random.default_rng(0)) == {}


def test_features_that_are_not_finite_give_nan_and_no_error() -> None:
    network = constructed_network()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    agent: Any = Blind(network)
    assert np.isnan(measure(agent, ones_replay([0], [0.0]), np.random.default_rng(0))["effective_rank"])


class Repeating(nn.Module):
    """Shows its head several rows per state, as implicit quantile networks do: the features times 0, 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        inner = constructed_network()
        self.body, self.head = inner.body, inner.head

    def forward(self, obs: np.ndarray) -> Tensor:
        features_BF = self.body(torch.from_numpy(obs))
        rows: Tensor = self.head((features_BF.unsqueeze(1) * torch.arange(3.0).view(1, 3, 1)).flatten(0, 1))
        return rows


def test_several_rows_per_state_are_averaged() -> None:
    obs = np.random.default_rng(0).normal(size=(70, 2)).astype(np.float32)  # three forwards, of unequal parts
    network, repeating = constructed_network(), Repeating()
    for net in (network, repeating):
        activities, features_BF = diagnostics._activities_and_features(net, obs)
        torch.testing.assert_close(features_BF, network.body(torch.from_numpy(obs)).detach())
        torch.testing.assert_close(activities[0], features_BF.mean(dim=0))


@pytest.mark.parametrize(
    ("config", "layers", "units"),
    [
        (NatureCnnConfig(), 4, 32 + 64 + 64 + 512),
        (ImpalaCnnConfig(), 14, 4 * 16 + 4 * 32 + 4 * 32 + 32 + 512),
        (ImpalaCnnConfig(layer_norm=True, global_average_pooling=True), 14, 4 * 16 + 8 * 32 + 32 + 512),
    ],
)
def test_channels_are_the_units_of_convolutions_and_the_output_layer_has_none(
    config: Any, layers: int, units: int
) -> None:
    torch.manual_seed(0)
    network = HeadedNetwork(build_body(config, PIXELS), 2, "torch")
    obs = np.random.default_rng(0).integers(0, 256, (5, *PIXELS.shape), dtype=np.uint8)
    activities, features_BF = diagnostics._activities_and_features(network, obs)
    assert len(activities) == layers and sum(len(activity_U) for activity_U in activities) == units
    assert all((activity_U >= 0).all() for activity_U in activities)
    assert features_BF.shape == (5, 512)


def test_the_activity_of_a_channel_is_a_mean_over_states_and_positions() -> None:
    torch.manual_seed(0)
    network = HeadedNetwork(build_body(NatureCnnConfig(), PIXELS), 2, "torch")
    obs = np.random.default_rng(0).integers(0, 256, (40, *PIXELS.shape), dtype=np.uint8)
    activities, _ = diagnostics._activities_and_features(network, obs)
    layers: Any = network.body.layers
    with torch.no_grad():
        expected_BCHW = layers.conv1(torch.from_numpy(obs) / 255).relu()
    torch.testing.assert_close(activities[0], expected_BCHW.mean(dim=(0, 2, 3)))


def test_first_filters_are_a_copy_of_the_first_convolution() -> None:
    network = HeadedNetwork(build_body(ImpalaCnnConfig(), PIXELS), 2, "torch")
    agent: Any = Blind(network)
    filters = first_filters(agent)
    layers: Any = network.body.layers
    weight: Tensor = layers.stack1.conv.weight.detach()
    assert filters is not None and filters.shape == (16, 4, 3, 3)
    assert np.array_equal(filters, weight.numpy())
    filters[:] = 0
    assert weight.abs().sum() > 0
