"""What Minari datasets made elsewhere hold, as facts, observations and actions of trajectory files.

Legend: T steps of an episode, A entries of an action, O observation shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from memory.trajectory_facts import TrajectoryFacts


def foreign_facts(dataset: Any, task: str) -> TrajectoryFacts:
    """Gives the facts of a Minari dataset as converted.

    Args:
        dataset: a MinariDataset.
        task: name for it.
    Raises:
        ValueError: if its spaces are not Box or Discrete, or the actions have no bounds.
    """
    from gymnasium.spaces import Box, Discrete

    obs_space, action_space = dataset.observation_space, dataset.action_space
    for name, space in (("observation", obs_space), ("action", action_space)):
        if not isinstance(space, (Box, Discrete)):
            raise ValueError(f"its {name} space is {space}, expected Box or Discrete")
    if isinstance(action_space, Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise ValueError(f"its action space {action_space} has no bounds to map to [-1, 1]")
    image = isinstance(obs_space, Box) and len(obs_space.shape) == 3 and obs_space.dtype.kind in "fu"
    kept = ("uint8",) if image else ("float16",)
    size = int(obs_space.n) if isinstance(obs_space, Discrete) else int(np.prod(obs_space.shape))
    bounds = [action_space.low.ravel().tolist(), action_space.high.ravel().tolist()] if _is_box(action_space) else None
    return TrajectoryFacts(
        env_id=dataset.env_spec.id if dataset.env_spec is not None else dataset.id,
        suite="minari",
        task=task,
        observation_kind="image" if image else "vector",
        obs_shape=tuple(obs_space.shape) if image else (size,),
        obs_dtype=obs_space.dtype.name if obs_space.dtype.name in kept else "float32",
        action_kind="continuous" if bounds else "discrete",
        num_actions=None if bounds else int(action_space.n),
        action_size=int(np.prod(action_space.shape)) if bounds else None,
        extra={"minari_id": dataset.id, "action_bounds": bounds},
    )


def _is_box(space: Any) -> bool:
    from gymnasium.spaces import Box

    return isinstance(space, Box)


def converted_obs(obs: np.ndarray, space: Any, facts: TrajectoryFacts) -> np.ndarray:
    """Gives an episode's observations as :func:`foreign_facts` describes them.

    Args:
        obs: as Minari gives them, (T + 1, *O).
        space: of one observation.
        facts: of the dataset.
    Raises:
        ValueError: if integers do not fit the dtype.
    """
    if not _is_box(space):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(obs) - int(space.start)]
    obs = np.asarray(obs)
    converted = obs.reshape(len(obs), *facts.obs_shape).astype(facts.obs_dtype)
    if obs.dtype.kind in "iu" and not np.array_equal(converted.reshape(obs.shape), obs):
        raise ValueError(f"observations of {obs.dtype} do not fit {facts.obs_dtype}")
    return converted


def converted_action(episode_id: int, action: np.ndarray, space: Any, clip: bool) -> np.ndarray:
    """Gives an episode's actions as indices from 0, (T,), or mapped from their bounds to [-1, 1], (T, A).

    Args:
        episode_id: to name it in errors.
        action: as Minari gives them, T of them.
        space: of one action.
        clip: clip actions outside the bounds instead of refusing them.
    Raises:
        ValueError: if an action is outside the bounds.
    """
    if not _is_box(space):
        return np.asarray(action).astype(np.int64) - int(space.start)
    action_TA = np.asarray(action).reshape(len(action), -1)
    low_A, high_A = space.low.ravel(), space.high.ravel()
    if clip:
        action_TA = np.clip(action_TA, low_A, high_A)
    outside = (action_TA < low_A) | (action_TA > high_A)
    if outside.any():
        raise ValueError(
            f"episode {episode_id} has action {action_TA[outside][0]} outside {space}; clip_actions=True clips it"
        )
    low_A, high_A = low_A.astype(np.float64), high_A.astype(np.float64)
    is_unit_A = (low_A == -1) & (high_A == 1)  # kept bit for bit
    scaled_TA = 2 * (action_TA - low_A) / np.where(high_A > low_A, high_A - low_A, 1) - 1
    return np.where(is_unit_A, action_TA, scaled_TA).astype(np.float32)
