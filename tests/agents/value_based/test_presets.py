"""The presets are Dopamine's published settings, number by number."""

from typing import Any

import pytest

from sextant.config import compose_train_config

COMMON = {"batch_size": 32, "gamma": 0.99, "epsilon_initial": 1.0, "epsilon_final": 0.01}
ONLINE = {
    **COMMON,
    "learning_starts": 20_000,
    "replay_ratio": 0.25,
    "target_update_period": 2_000,
    "epsilon_decay": 250_000,
    "double": False,
    "dueling": False,
    "noisy": False,
    "augmentation": "none",
}
ATARI_100K = {**COMMON, "learning_starts": 1_600, "replay_ratio": 1.0, "double": True, "dueling": True, "n_step": 10}
ATOMS = {"name": "c51", "num_atoms": 51, "value_min": -10.0, "value_max": 10.0}
RAINBOW_ADAM = {"learning_rate": 6.25e-5, "adam_eps": 1.5e-4}
QUANTILE_ADAM = {"learning_rate": 5e-5, "adam_eps": 3.125e-4, "kappa": 1.0}
FRACTIONS = {"num_fractions": 64, "num_target_fractions": 64, "num_acting_fractions": 32, "num_cosines": 64}
PRESETS: dict[str, dict[str, Any]] = {
    "c51": {**ONLINE, **ATOMS, "n_step": 1, "learning_rate": 2.5e-4, "adam_eps": 3.125e-4},
    "rainbow": {**ONLINE, **ATOMS, **RAINBOW_ADAM, "n_step": 3},
    "der": {
        **ATARI_100K,
        **ATOMS,
        "learning_rate": 1e-4,
        "adam_eps": 1.5e-4,
        "noisy": True,
        "noisy_sigma": 0.1,
        "target_update_period": 2_000,
        "epsilon_decay": 2_000,
    },
    "drq": {
        **ATARI_100K,
        "name": "dqn",
        "loss": "huber",
        "huber_delta": 1.0,
        "learning_rate": 1e-4,
        "adam_eps": 1.5e-4,
        "noisy": False,
        "augmentation": "drq",
        "target_update_period": 1,
        "epsilon_decay": 5_000,
    },
    "qr_dqn": {**ONLINE, **QUANTILE_ADAM, "name": "qr_dqn", "num_quantiles": 200, "n_step": 3},
    "iqn": {**ONLINE, **QUANTILE_ADAM, **FRACTIONS, "name": "iqn", "n_step": 3, "munchausen": False},
    "munchausen_iqn": {
        **ONLINE,
        **QUANTILE_ADAM,
        **FRACTIONS,
        "n_step": 1,
        "munchausen": True,
        "munchausen_alpha": 0.9,
        "munchausen_temperature": 0.03,
        "munchausen_clip": -1.0,
    },
}
REPLAYS = {"rainbow": (True, 0.5, 0.5), "der": (True, 0.5, 0.5), "qr_dqn": (True, 0.5, 0.0)}
GLOROT = ("der", "drq")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_published_settings(preset: str) -> None:
    agent: Any = compose_train_config([f"agent={preset}", "trainer.total_env_steps=1000000"]).agent
    assert {name: getattr(agent, name) for name in PRESETS[preset]} == PRESETS[preset]
    assert agent.label == preset
    replay = agent.replay
    assert (replay.prioritised, replay.alpha, replay.beta) == REPLAYS.get(preset, (False, 0.5, 0.5))
    assert replay.capacity == 1_000_000
    network = agent.network
    assert (network.kind, network.padding, network.hidden_width) == ("nature_cnn", "same", 512)
    assert network.initialization == ("glorot" if preset in GLOROT else "fan_in_uniform")
