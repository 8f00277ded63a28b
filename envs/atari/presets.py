"""The named Atari protocols: one table, so that two numbers under one name mean the same rules.

"[recollection]" marks what we hold from memory and could not find in a source we read. Everywhere: no-ops are the C++
environment's 0..noop_max-1 emulator frames (the classic wrappers draw 1..noop_max), FIRE is pressed once per game (the
classic wrapper presses it again after each lost life), and a lost life needs no extra no-op step to go on.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from envs.base import Strict, nearest
from envs.protocols import AtariProtocol

FIVE_MINUTES = 18_000  # emulator frames at 60 per second
HALF_HOUR = 108_000  # emulator frames at 60 per second, 27,000 agent steps


class AtariPreset(Strict):
    """One named set of rules.

    Attributes:
        source: where the values come from, and what differs.
        dynamics: fields that training and evaluation share.
        training: fields of training only.
        evaluation: fields of evaluation only; games there are always whole and rewards raw.
    """

    source: str = Field(description="where the values come from, and what differs")
    dynamics: dict[str, Any] = Field(description="fields that training and evaluation share")
    training: dict[str, Any] = Field(description="fields of training only")
    evaluation: dict[str, Any] = Field(description="fields of evaluation only")


def _dynamics(*, sticky: float, noops: int = 0, fire: bool = False, full: bool = False) -> dict[str, Any]:
    return {"sticky_prob": sticky, "noop_max": noops, "fire_reset": fire, "full_action_space": full}


def _training(*, life_loss: bool, clip: bool = True, cap: int = HALF_HOUR) -> dict[str, Any]:
    return {"terminal_on_life_loss": life_loss, "clip_reward": clip, "max_frames": cap}


def _evaluation(*, episodes: int, epsilon: float, cap: int = HALF_HOUR) -> dict[str, Any]:
    return {"num_episodes": episodes, "evaluation_epsilon": epsilon, "max_frames": cap}


ATARI_PRESETS: MappingProxyType[str, AtariPreset] = MappingProxyType({
    "dopamine": AtariPreset(
        source="Dopamine atari_lib.py and its JAX agents' gin files: 27,000 agent steps, evaluation epsilon 0.001. "
        "Differs: Dopamine evaluates for 125,000 agent steps, which favours short games; we play 10 whole games "
        "(at most 270,000 steps).",
        dynamics=_dynamics(sticky=0.25),
        training=_training(life_loss=False),
        evaluation=_evaluation(episodes=10, epsilon=0.001),
    ),
    "machado2018": AtariPreset(
        source="Machado et al. 2018, arXiv 1709.06009: sticky 0.25, all 18 actions, whole games, five-minute cap "
        "[recollection]; scores there are averages over the last 100 training episodes at the training epsilon of "
        "0.01 [recollection], hence 100 games. Differs: the paper skips 5 frames, today's environments 4 (ALE issue "
        "443); set frame_skip=5 for the paper's.",
        dynamics=_dynamics(sticky=0.25, full=True),
        training=_training(life_loss=False, cap=FIVE_MINUTES),
        evaluation=_evaluation(episodes=100, epsilon=0.01, cap=FIVE_MINUTES),
    ),
    "ale_v5_raw": AtariPreset(
        source="ale-py registration.py, `ALE/<Game>-v5`: sticky 0.25, minimal actions, no no-ops, no FIRE, nothing "
        "clipped. It says nothing about evaluation: 10 greedy games, epsilon 0.001 so that a game that waits for a "
        "button does not always run to the cap.",
        dynamics=_dynamics(sticky=0.25),
        training=_training(life_loss=False, clip=False),
        evaluation=_evaluation(episodes=10, epsilon=0.001),
    ),
    "dqn_nature": AtariPreset(
        source="Dopamine dqn_nature.gin: no sticky actions, life loss terminal, 27,000 agent steps in training. "
        "Evaluation as Mnih et al. 2015: 30 games of at most five minutes, up to 30 no-ops, epsilon 0.05 "
        "[recollection for games, minutes and no-ops].",
        dynamics=_dynamics(sticky=0.0, noops=30),
        training=_training(life_loss=True),
        evaluation=_evaluation(episodes=30, epsilon=0.05, cap=FIVE_MINUTES),
    ),
    "baselines_v4": AtariPreset(
        source="The atari_wrappers.py of SB3, CleanRL and Tianshou over NoFrameskip-v4: 30 no-ops, FIRE, life loss "
        "terminal in training, sign of the reward (Atari rewards are whole numbers, so this is the clip to [-1, 1]). "
        "Evaluation as CleanRL's dqn_atari.py: 10 games, epsilon 0.05.",
        dynamics=_dynamics(sticky=0.0, noops=30, fire=True),
        training=_training(life_loss=True),
        evaluation=_evaluation(episodes=10, epsilon=0.05),
    ),
    "dqn_zoo": AtariPreset(
        source="dqn_zoo processors.py and dqn/run_atari.py: up to 30 no-ops, 108,000 frames, epsilon 0.05; the "
        "discount is zero at a lost life while the game goes on, which is what terminal_on_life_loss does here. "
        "Differs: it evaluates for 500,000 frames (125,000 steps); we play 10 whole games.",
        dynamics=_dynamics(sticky=0.0, noops=30),
        training=_training(life_loss=True),
        evaluation=_evaluation(episodes=10, epsilon=0.05),
    ),
    "atari100k": AtariPreset(
        source="Dopamine labs/atari_100k/configs (DER, DrQ, OTRainbow, SPR): no sticky actions, life loss terminal, "
        "27,000 steps; 100 games after training at epsilon 0.001. Differs: the SPR and EfficientZero line starts with "
        "up to 30 no-ops; set noop_max=30 for that.",
        dynamics=_dynamics(sticky=0.0),
        training=_training(life_loss=True),
        evaluation=_evaluation(episodes=100, epsilon=0.001),
    ),
})  # fmt: skip


def check_preset(name: str) -> str:
    """Returns ``name`` if it is a preset.

    Raises:
        ValueError: if it is not; the message has the nearest names.
    """
    if name not in ATARI_PRESETS:
        raise ValueError(f"unknown Atari protocol {name!r}: {nearest(name, ATARI_PRESETS)}")
    return name


def atari_protocol(name: str, game: str, role: Literal["training", "evaluation"]) -> AtariProtocol:
    """Gives a preset's rules for one game, in training or in evaluation.

    Raises:
        ValueError: if there is no such preset.
    """
    preset = ATARI_PRESETS[check_preset(name)]
    fields: dict[str, Any] = {"id": name, "env_name": game, "role": role} | preset.dynamics
    if role == "training":
        return AtariProtocol(**fields | preset.evaluation | preset.training)
    return AtariProtocol(**fields | preset.evaluation | {"terminal_on_life_loss": False, "clip_reward": False})
