"""The spaces an agent meets in an env, looked up by making one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sextant.learner import Spaces


def spaces_of_env(env_config: Any, protocol: Any = None) -> Spaces:
    """Gives the spaces of observations and actions of one environment, as a vector env shows them.

    Args:
        env_config: of any suite.
        protocol: under which the env is made; None for the config's own for evaluation.
    """
    env = env_config.make_evaluation_env(protocol or env_config.evaluation_protocol(), 1)
    try:
        return env.single_observation_space, env.single_action_space
    finally:
        env.close()
