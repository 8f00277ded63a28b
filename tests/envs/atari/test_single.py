from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from envs.atari import AtariConfig, atari_protocol
from envs.atari.single import AtariSingle, minimal_actions
from envs.atari.vector import AtariVector
from envs.base import EpisodeSpec

BREAKOUT = atari_protocol("dopamine", "breakout", "evaluation")


def area_weights(source: int, target: int) -> NDArray[np.float64]:
    """Row t: the share of each source pixel in target pixel t, when an image of ``source`` pixels is shrunk."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float64] = np.maximum(overlap, 0) * target / source
    return weights


def shrink(screen: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = screen.shape
    shrunk: NDArray[np.float64] = np.rint(area_weights(height, 84) @ screen @ area_weights(width, 84).T)
    return shrunk


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    config = AtariConfig(game="breakout")
    env = config.make_single_env(config.evaluation_protocol(), render_mode="rgb_array")
    check_env(env)  # warnings are errors here
    env.close()
    env.close()


@pytest.mark.parametrize("game", ["breakout", "ms_pacman"])
def test_single_is_the_vector_env_frame_for_frame(game: str) -> None:
    """With sticky actions, no-ops and lost lives, over several games: one seed gives the same in both."""
    protocol = atari_protocol("dopamine", game, "training").changed(
        noop_max=30, fire_reset=True, terminal_on_life_loss=True, max_frames=1600
    )
    vector, single = AtariVector(protocol, 2, num_threads=1), AtariSingle(protocol)
    obs, _ = vector.begin_episodes([1, 0], [EpisodeSpec(0, 77, game), EpisodeSpec(1, 78, game)])
    single_obs, _ = single.reset(seed=77)
    np.testing.assert_array_equal(single_obs, obs[0])
    rng = np.random.default_rng(0)
    num_actions = int(single.action_space.n)  # type: ignore[attr-defined]
    ends, lives = 0, 0
    for _ in range(700):
        action = rng.integers(0, num_actions, 2)
        obs, reward, terminated, truncated, info = vector.step(action)
        single_obs, single_reward, *flags, single_info = single.step(action[1])
        np.testing.assert_array_equal(single_obs, obs[1])
        assert (single_reward, flags) == (reward[1], [terminated[1], truncated[1]])
        assert single_info == {"raw_reward": info["raw_reward"][1], "episode_over": info["episode_over"][1]}
        if (terminated | truncated).any():
            ids = np.flatnonzero(terminated | truncated)
            first, _ = vector.reset(ids)
            if any(flags):
                ends, lives = ends + single_info["episode_over"], lives + (not single_info["episode_over"])
                np.testing.assert_array_equal(single.reset()[0], first[-1])
    assert ends >= 1
    assert lives >= 2
    vector.close()
    single.close()


def test_the_colour_screen_shows_what_the_agent_sees() -> None:
    """With frame skip 1 nothing is pooled: the newest frame is the area-shrunk grey screen, within a grey level."""
    protocol = BREAKOUT.changed(frame_skip=1, noop_max=30, fire_reset=True, max_frames=130, terminal_on_life_loss=True)
    env = AtariSingle(protocol, render_mode="rgb_array")
    screen = env._screen
    assert screen is not None
    rng = np.random.default_rng(0)

    def check(obs: NDArray[np.uint8]) -> None:
        assert np.abs(shrink(screen.ale.getScreenGrayscale()) - obs[-1]).max() <= 1

    check(env.reset(seed=1)[0])
    games = 0
    for time in range(1000):
        obs, _, terminated, truncated, info = env.step(int(rng.integers(4)))
        if info["episode_over"]:
            games += 1  # both ale-py and gymnasium's wrapper leave the very last frame of a game out
        else:
            check(obs)
        if terminated or truncated or time % 170 == 169:
            check(env.reset(seed=time if time % 3 == 0 else None)[0])
            check(env.reset()[0])
    assert games >= 3
    image = env.render()
    assert image is not None
    assert image.shape == (210, 160, 3)
    env.close()


def test_the_screen_keeps_pace_with_skipped_frames() -> None:
    protocol = BREAKOUT.changed(max_frames=42, noop_max=30)
    env = AtariSingle(protocol, render_mode="rgb_array")
    env.reset(seed=5)
    assert env._screen is not None
    start = int(env._vector.reset_frames[0])
    for _ in range(11):
        _, _, _, truncated, _ = env.step(0)
    assert truncated
    assert env._screen.ale.getEpisodeFrameNumber() == start + 42
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    env.close()


def test_gymnasiums_own_wrappers_give_the_same_frames() -> None:
    pytest.importorskip("cv2")
    import ale_py
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    gymnasium.register_envs(ale_py)
    for game, name in (("breakout", "Breakout"), ("ms_pacman", "MsPacman")):
        plain: Any = gymnasium.make(f"ALE/{name}-v5", frameskip=1, repeat_action_probability=0.0)
        plain = FrameStackObservation(AtariPreprocessing(plain, noop_max=0), 4, padding_type="zero")
        ours = AtariSingle(atari_protocol("dopamine", game, "evaluation").changed(sticky_prob=0.0))
        np.testing.assert_array_equal(ours.reset(seed=1)[0], plain.reset(seed=1)[0])
        rng = np.random.default_rng(0)
        for _ in range(400):
            action = int(rng.integers(int(ours.action_space.n)))  # type: ignore[attr-defined]
            obs, reward, terminated, truncated, _ = ours.step(action)
            their_obs, *theirs, _ = plain.step(action)
            np.testing.assert_array_equal(obs, their_obs)
            assert [reward, terminated, truncated] == theirs
            if terminated or truncated:
                np.testing.assert_array_equal(ours.reset()[0], plain.reset()[0])
        ours.close()
        plain.close()


@pytest.mark.parametrize("game", ["breakout", "pong", "freeway", "ms_pacman", "backgammon"])
def test_minimal_actions_are_the_emulators_and_noop(game: str) -> None:
    minimal, full = (AtariConfig.model_validate({"game": game, "full_action_space": full}) for full in (False, True))
    env = AtariSingle(minimal.training_protocol(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env._screen is not None
    assert set(minimal_actions(game)) == {0, *(action.value for action in env._screen._actions)}
    assert minimal.action_sets() == {} and full.action_sets() == {game: minimal_actions(game)}
    env.close()


def test_a_game_that_ale_py_lacks_has_no_actions() -> None:
    with pytest.raises(ValueError, match="unknown game 'pogn'"):
        minimal_actions("pogn")


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="'human'"):
        AtariSingle(BREAKOUT, render_mode="human")
    env = AtariSingle(BREAKOUT)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match=r"0\.\.3, got \[4\]"):
        env.step(4)
    assert env.render() is None
    env.close()
