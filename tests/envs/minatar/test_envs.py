"""The games play as the package's own, from the seed and the actions alone; gymnasium's checker passes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import check_env

from envs.base import EpisodeSpec
from envs.minatar.config import GAMES, MOST_CHANNELS, MinatarConfig
from envs.minatar.envs import MinatarEnv, game_class, minimal_actions
from sextant.checkout import CHECKOUT

CHANNELS_AND_MINIMAL = {
    "asterix": (4, [0, 1, 2, 3, 4]),
    "breakout": (4, [0, 1, 3]),
    "freeway": (7, [0, 2, 4]),
    "seaquest": (10, [0, 1, 2, 3, 4, 5]),
    "space_invaders": (6, [0, 1, 3, 5]),
}


def single(game: str, **settings: Any) -> MinatarEnv:
    config = MinatarConfig.model_validate({"game": game, **settings})
    return MinatarEnv(config.training_protocol())


def num_actions(env: MinatarEnv) -> int:
    assert isinstance(env.action_space, Discrete)
    return int(env.action_space.n)


def play(env: MinatarEnv, actions: list[int]) -> list[tuple[bytes, float, bool, bool]]:
    """Gives what the actions lead to; episodes that end are followed by unseeded ones."""
    seen = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(np.int64(action))
        seen.append((obs.tobytes(), reward, terminated, truncated))
        if terminated or truncated:
            seen.append((env.reset()[0].tobytes(), 0.0, False, False))
    return seen


@pytest.mark.parametrize("game", GAMES)
def test_spaces(game: str) -> None:
    channels, minimal = CHANNELS_AND_MINIMAL[game]
    env, full = single(game), single(game, full_action_space=True)
    assert env.observation_space.shape == (channels, 10, 10) and env.observation_space.dtype == np.uint8
    assert list(env._actions) == minimal and num_actions(env) == len(minimal)
    assert num_actions(full) == 6 and list(full._actions) == list(range(6))
    obs, _ = env.reset(seed=0)
    assert obs.flags.c_contiguous and set(np.unique(obs)) == {0, 255}


@pytest.mark.parametrize("game", GAMES)
def test_all_channels_are_the_games_own_and_zeros(game: str) -> None:
    own, padded = single(game), single(game, all_channels=True)
    assert padded.observation_space.shape == (MOST_CHANNELS, 10, 10)
    channels, minimal = CHANNELS_AND_MINIMAL[game]
    actions = np.random.default_rng(0).integers(len(minimal), size=50)
    pairs = [(own.reset(seed=1)[0], padded.reset(seed=1)[0])]
    pairs += [(own.step(action)[0], padded.step(action)[0]) for action in actions]
    for plain, wide in pairs:
        assert wide.flags.c_contiguous and wide.flags.owndata and padded.observation_space.contains(wide)
        np.testing.assert_array_equal(wide[:channels], plain)
        assert not wide[channels:].any()


def test_seaquest_has_the_most_channels() -> None:
    channels = {game: game_class(game)(ramping=True).state_shape()[-1] for game in GAMES}
    assert max(channels.values()) == MOST_CHANNELS == channels["seaquest"]


@pytest.mark.parametrize("game", GAMES)
def test_minimal_actions_are_the_packages(game: str) -> None:
    assert list(minimal_actions(game)) == CHANNELS_AND_MINIMAL[game][1]


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize(("sticky_prob", "ramping"), [(0.1, True), (0.0, False)])
def test_an_episode_is_the_one_that_the_package_plays(game: str, sticky_prob: float, ramping: bool) -> None:
    import minatar

    for seed in range(3):
        env = single(game, full_action_space=True, sticky_prob=sticky_prob, difficulty_ramping=ramping)
        theirs = minatar.Environment(game, sticky_action_prob=sticky_prob, difficulty_ramping=ramping)
        theirs.seed(seed)
        theirs.reset()
        obs, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(obs == 255, theirs.state().transpose(2, 0, 1))
        for action in np.random.default_rng(seed).integers(6, size=400):
            expected_reward, expected_end = theirs.act(int(action))
            obs, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_array_equal(obs == 255, theirs.state().transpose(2, 0, 1))
            assert (reward, terminated, truncated) == (expected_reward, expected_end, False)
            if terminated:
                break


@pytest.mark.parametrize("game", GAMES)
def test_seed_and_actions_decide_everything(game: str) -> None:
    actions = np.random.default_rng(0).integers(num_actions(single(game)), size=300).tolist()
    fresh, used = single(game), single(game)
    used.reset(seed=99)
    play(used, actions[:77])
    assert fresh.reset(seed=7)[0].tobytes() == used.reset(seed=7)[0].tobytes()
    wanted = play(fresh, actions)
    assert play(used, actions) == wanted
    other = single(game)
    other.reset(seed=8)
    assert play(other, actions) != wanted


def test_no_action_reaches_into_the_next_episode() -> None:
    env = single("breakout", sticky_prob=1.0)
    env.reset(seed=0)
    env._previous_action = 1
    env.reset()
    before = env._game.pos
    env.step(np.int64(2))  # repeated is the no-op an episode starts with
    assert env._game.pos == before


@pytest.mark.parametrize("sticky_prob", [0.0, 0.25])
def test_actions_stick_as_often_as_asked(sticky_prob: float) -> None:
    env = single("breakout", sticky_prob=sticky_prob)
    env.reset(seed=0)
    repeated = 0
    for step in range(2000):
        wanted = 1 + step % 2
        env._previous_action = 0
        env.step(np.int64(wanted))
        repeated += env._previous_action == 0
    assert abs(repeated / 2000 - sticky_prob) < 0.03  # three standard errors of 2,000 draws


def test_the_cap_truncates() -> None:
    env = single("freeway", max_episode_steps=9)
    env.reset(seed=0)
    assert [env.step(np.int64(0))[3] for _ in range(9)] == [False] * 8 + [True]


def test_freeway_ends_by_itself_after_2501_steps() -> None:
    env = single("freeway")
    env.reset(seed=0)
    ends = [env.step(np.int64(0))[2:4] for _ in range(2501)]
    assert ends == [(False, False)] * 2500 + [(True, False)]


def test_the_chicken_that_always_walks_scores() -> None:
    """A known play: without sticky actions, up whenever possible crosses the road many times."""
    env = single("freeway", sticky_prob=0.0)
    for action, low, high in ((1, 10, 100), (0, 0, 0)):
        env.reset(seed=0)
        score = sum(env.step(np.int64(action))[1] for _ in range(2501))
        assert low <= score <= high


@pytest.mark.parametrize("game", GAMES)
def test_gymnasiums_checker_passes(game: str) -> None:
    config = MinatarConfig(game=game)
    check_env(config.make_single_env(config.training_protocol(), render_mode="rgb_array"), skip_render_check=True)


def test_frames_show_each_channel_in_its_colour() -> None:
    config = MinatarConfig(game="breakout")
    env = config.make_single_env(config.training_protocol(), render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    frame: Any = env.render()
    assert frame.shape == (160, 160, 3) and frame.dtype == np.uint8
    grid = frame[8::16, 8::16]
    assert not grid[~obs.any(axis=0)].any()
    assert all(len(np.unique(grid[channel == 255], axis=0)) == 1 for channel in obs[[0, 3]])
    assert single("breakout").render() is None


def test_vector_env_steps_and_resets_as_listed() -> None:
    config = MinatarConfig(game="breakout", num_envs=3)
    venv = config.make_training_env()
    obs, info = venv.reset(seed=0)
    assert obs.shape == (3, 4, 10, 10) and obs.dtype == np.uint8 and set(info) == {"raw_reward", "episode_over"}
    over = np.zeros(3, dtype=bool)
    for _ in range(200):
        obs, reward, terminated, truncated, info = venv.step(np.zeros(3, dtype=np.int64))
        np.testing.assert_array_equal(info["episode_over"], terminated | truncated)
        np.testing.assert_array_equal(info["raw_reward"], reward)
        over |= info["episode_over"]
        if info["episode_over"].any():
            venv.reset(np.flatnonzero(info["episode_over"]))
    assert over.all()
    with pytest.raises(ValueError, match=r"expected actions in 0\.\.2, got \[3, 0, 0\]"):
        venv.step(np.array([3, 0, 0]))
    venv.close()


def test_vector_and_single_env_play_the_same_episode() -> None:
    config = MinatarConfig(game="asterix")
    protocol = config.evaluation_protocol()
    venv, env = config.make_evaluation_env(protocol, 2), config.make_single_env(protocol)
    spec = EpisodeSpec(index=0, seed=123, task=protocol.env_name)
    obs, _ = venv.begin_episodes([1], [spec])
    np.testing.assert_array_equal(obs[0], env.reset(seed=123, options={"task": spec.task, "goal_index": None})[0])
    for action in np.random.default_rng(0).integers(5, size=100):
        obs, reward, terminated, *_ = venv.step(np.array([action]), id=[1])
        expected = env.step(action)
        np.testing.assert_array_equal(obs[0], expected[0])
        assert (reward[0], terminated[0]) == (expected[1], expected[2])
        if terminated[0]:
            break
    venv.close()


def test_a_game_needs_no_plotting_library() -> None:
    script = (
        "import sys; from envs.minatar import MinatarConfig; c = MinatarConfig(game='breakout'); "
        "c.make_single_env(c.training_protocol()).reset(seed=0); "
        "print(sorted({'seaborn', 'minatar'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    game_class.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"need the package minatar"):
        game_class("breakout")
