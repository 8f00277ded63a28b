"""Stable-Baselines3, which knows nothing of us, trains on our single envs: they are plain gymnasium environments."""

from __future__ import annotations

import numpy as np
import pytest

from envs import AtariConfig, MetaworldConfig

pytestmark = pytest.mark.slow

stable_baselines3 = pytest.importorskip("stable_baselines3")


def test_sb3s_dqn_trains_on_our_atari() -> None:
    config = AtariConfig(game="pong")
    env = config.make_single_env(config.training_protocol())
    model = stable_baselines3.DQN(
        "CnnPolicy", env, buffer_size=500, learning_starts=100, batch_size=8, train_freq=4, seed=0, device="cpu"
    )
    before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
    model.learn(300)
    assert model.num_timesteps == 300
    assert any(not np.array_equal(b, a.detach()) for b, a in zip(before, model.q_net.parameters(), strict=True))
    obs, _ = env.reset(seed=1)
    assert env.action_space.contains(model.predict(obs, deterministic=True)[0])
    env.close()


@pytest.mark.parametrize("benchmark", ["single", "MT10"])
def test_sb3s_sac_trains_on_our_metaworld(benchmark: str) -> None:
    config = MetaworldConfig(benchmark=benchmark, one_hot=benchmark == "MT10", max_episode_steps=100)
    env = config.make_single_env(config.training_protocol())
    model = stable_baselines3.SAC(
        "MlpPolicy", env, buffer_size=1000, learning_starts=100, batch_size=32, seed=0, device="cpu"
    )
    model.learn(350)
    assert model.num_timesteps == 350
    returns = [episode["r"] for episode in model.ep_info_buffer]
    assert len(returns) == 3 and np.isfinite(returns).all() and min(returns) > 0
    obs, _ = env.reset(seed=1)
    assert env.action_space.contains(model.predict(obs, deterministic=True)[0])
    env.close()
