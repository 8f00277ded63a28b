"""Configs are light, and refuse what makes no sense."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from agents import AgentConfig, C51Config, CQLConfig, DQNConfig, IQNConfig, PPOConfig, QRDQNConfig, SACConfig
from agents.base_config import MlpConfig, NatureCnnConfig
from memory import ReplayConfig

HEAVY = "torch", "tianshou", "gymnasium", "ale_py", "metaworld", "scipy", "numba"


def test_importing_configs_loads_nothing_heavy() -> None:
    code = (
        "import sys, agents, agents.base_config, agents.actor_critic.config, agents.value_based.config\n"
        "agents.DQNConfig(), agents.PPOConfig(), agents.SACConfig()\n"
        "agents.C51Config(), agents.QRDQNConfig(), agents.IQNConfig(), agents.CQLConfig()\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lazy_names_resolve_and_unknown_ones_do_not() -> None:
    import agents

    assert agents.RandomAgent.__module__ == "agents.scripted"
    with pytest.raises(AttributeError, match="'Nothing'"):
        agents.Nothing  # noqa: B018


def test_dqn_defaults_are_dopamines() -> None:
    config = DQNConfig()
    assert (config.learning_rate, config.adam_eps, config.batch_size, config.gamma) == (6.25e-5, 1.5e-4, 32, 0.99)
    assert (config.n_step, config.loss, config.double, config.replay_ratio) == (1, "mse", False, 0.25)
    assert (config.learning_starts, config.target_update_period) == (20_000, 2_000)
    assert (config.epsilon_initial, config.epsilon_final, config.epsilon_decay) == (1.0, 0.01, 250_000)
    assert config.network == NatureCnnConfig(padding="same", initialization="glorot")
    assert config.replay.capacity == 1_000_000 and not config.replay.prioritised


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "dqm"}, "dqm"),
        ({"name": "dqn", "learning_rat": 1e-3}, "learning_rat"),
        ({"name": "dqn", "learning_rate": 0}, "learning_rate"),
        ({"name": "dqn", "learning_rate": float("nan")}, "learning_rate"),
        ({"name": "dqn", "batch_size": 2.5}, "batch_size"),
        ({"name": "dqn", "target_update_period": 0}, "target_update_period"),
        ({"name": "dqn", "epsilon_initial": 0.005}, "epsilon_final=0.01 lies above epsilon_initial=0.005"),
        ({"name": "dqn", "huber_delta": 2.0}, "huber_delta=2.0 has no effect with loss=mse"),
        ({"name": "dqn", "network": {"kind": "mlp"}, "precision": "bf16"}, "convolutional"),
        ({"name": "dqn", "network": {"kind": "mlp", "padding": "same"}}, "padding"),
        ({"name": "dqn", "network": {"kind": "mlp", "hidden_widths": []}}, "hidden_widths"),
        ({"name": "dqn", "replay": {"capacity": 10}}, "replay.capacity=10 is smaller than batch_size=32"),
        ({"name": "dqn", "noisy_sigma": 0.1}, "noisy_sigma=0.1 has no effect with noisy=false"),
        ({"name": "dqn", "network": {"kind": "mlp"}, "augmentation": "drq"}, "augmentation=drq needs a convolutional"),
        ({"name": "c51", "value_min": 3.0, "value_max": 3.0}, "value_min=3.0 is not below value_max=3.0"),
        ({"name": "c51", "num_atoms": 1}, "num_atoms"),
        ({"name": "c51", "epsilon_initial": 0.005}, "epsilon_final=0.01 lies above epsilon_initial=0.005"),
        ({"name": "qr_dqn", "num_quantiles": 0}, "num_quantiles"),
        ({"name": "qr_dqn", "kappa": 0.0}, "kappa"),
        ({"name": "iqn", "munchausen_alpha": 0.5}, "munchausen_alpha=0.5 has no effect with munchausen=false"),
        ({"name": "iqn", "munchausen_clip": 0.5}, "munchausen_clip"),
        ({"name": "iqn", "munchausen": True, "double": True}, "double=true has no effect with munchausen=true"),
        ({"name": "iqn", "network": {"kind": "mlp", "hidden_widths": [8]}}, r"hidden_widths=\[8\]: iqn needs two"),
        ({"name": "ppo", "normalize_observations": True}, "normalize_observations=true is for vectors"),
        ({"name": "ppo", "network": {"kind": "mlp"}, "precision": "bf16"}, "convolutional"),
        ({"name": "ppo", "minibatch_size": 1}, "minibatch_size"),
        ({"name": "sac", "network": {"kind": "nature_cnn"}}, "network"),
        ({"name": "sac", "alpha": -1.0}, "alpha=-1.0"),
        ({"name": "sac", "alpha": 0.1, "target_entropy": -1.0}, "have no effect with alpha=0.1"),
        ({"name": "sac", "log_std_min": 3.0}, "log_std_min=3.0"),
    ],
)
def test_senseless_configs_are_refused_by_name_and_value(given: dict[str, Any], message: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AgentConfig)
    with pytest.raises(ValidationError, match=message):
        adapter.validate_python(given)


@pytest.mark.parametrize(
    ("config", "action_space", "message"),
    [
        (DQNConfig(network=MlpConfig()), gymnasium.spaces.Box(-1, 1, (2,)), "need a discrete"),
        (C51Config(network=MlpConfig()), gymnasium.spaces.Box(-1, 1, (2,)), "need a discrete"),
        (QRDQNConfig(), gymnasium.spaces.Discrete(2), "nature_cnn takes uint8 images"),
        (SACConfig(), gymnasium.spaces.Discrete(2), "Box of one dimension"),
        (SACConfig(), gymnasium.spaces.Box(-np.inf, np.inf, (2,)), "finite action bounds"),
        (PPOConfig(network=MlpConfig()), gymnasium.spaces.MultiDiscrete([2, 2]), "Box of one dimension"),
        (DQNConfig(), gymnasium.spaces.Discrete(2), "nature_cnn takes uint8 images"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(config: Any, action_space: gymnasium.Space[Any], message: str) -> None:
    space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    with pytest.raises(ValueError, match=message):
        config.build(space, action_space, device="cpu", seed=np.random.SeedSequence(0))


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (DQNConfig(), "dqn"),
        (DQNConfig(double=True), "double_dqn"),
        (DQNConfig(double=True, augmentation="drq"), "drq"),
        (C51Config(), "c51"),
        (C51Config(replay=ReplayConfig(prioritised=True)), "rainbow"),
        (C51Config(replay=ReplayConfig(prioritised=True), double=True, dueling=True, noisy=True), "der"),
        (QRDQNConfig(), "qr_dqn"),
        (IQNConfig(), "iqn"),
        (IQNConfig(munchausen=True), "munchausen_iqn"),
        (CQLConfig(), "cql"),
        (CQLConfig(distributional=True), "cql_c51"),
        (PPOConfig(), "ppo"),
        (SACConfig(), "sac"),
    ],
)
def test_labels_name_the_algorithm(config: Any, label: str) -> None:
    assert config.label == label
