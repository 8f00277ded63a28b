"""Meta-World's tasks and benchmarks as static tables, so that names are checked without importing the package.

Names, members and orders are those of ``metaworld/env_dict.py`` 3.1.1 (a test compares them with the installed
package); the order of a multi-task benchmark is the order of its one-hot task ids. Never sort them.
"""

from __future__ import annotations

from typing import Literal

BenchmarkName = Literal["single", "MT1", "MT10", "MT25", "MT50", "ML1", "ML10", "ML25", "ML45"]
Split = Literal["train", "test"]

HORIZON = 500
"""Steps after which the package truncates, and refuses to be stepped (``SawyerXYZEnv.max_path_length``)."""

GOALS_PER_TASK = 50
"""Goals the package draws per task (``metaworld._N_GOALS``)."""

CORE_OBS_DIM = 39
"""18 numbers now (hand 3, gripper 1, objects 14), the same 18 one step ago, and the goal's 3."""

SUCCESS_CRITERIA: dict[str, str] = {
    "assembly-v3": "nut aligned in x and y (< 0.02) and below the peg's top (reward v2; v1 tests otherwise)",
    "basketball-v3": "obj_to_target <= 0.05",
    "bin-picking-v3": "obj_to_target <= 0.05",
    "box-close-v3": "lid-to-target distance < 0.08",
    "button-press-topdown-v3": "obj_to_target <= 0.024",
    "button-press-topdown-wall-v3": "obj_to_target <= 0.024",
    "button-press-v3": "obj_to_target <= 0.02",
    "button-press-wall-v3": "obj_to_target <= 0.03",
    "coffee-button-v3": "obj_to_target <= 0.02",
    "coffee-pull-v3": "obj_to_target <= 0.07",
    "coffee-push-v3": "obj_to_target <= 0.07",
    "dial-turn-v3": "target_to_obj <= 0.05",
    "disassemble-v3": "nut height above target height",
    "door-close-v3": "obj_to_target <= 0.08",
    "door-lock-v3": "obj_to_target <= 0.02",
    "door-open-v3": "abs(obs[4] - target_x) <= 0.08",
    "door-unlock-v3": "obj_to_target <= 0.02",
    "hand-insert-v3": "obj_to_target <= 0.05",
    "drawer-close-v3": "target_to_obj <= 0.065",
    "drawer-open-v3": "handle_error <= 0.03",
    "faucet-open-v3": "target_to_obj <= 0.07",
    "faucet-close-v3": "target_to_obj <= 0.07",
    "hammer-v3": "nail slide joint > 0.09",
    "handle-press-side-v3": "target_to_obj <= 0.05",
    "handle-press-v3": "target_to_obj <= 0.05",
    "handle-pull-side-v3": "obj_to_target <= 0.08",
    "handle-pull-v3": "obj_to_target <= 0.05",
    "lever-pull-v3": "lever_error <= pi / 24",
    "pick-place-wall-v3": "obj_to_target <= 0.07",
    "pick-out-of-hole-v3": "obj_to_target <= 0.07",
    "pick-place-v3": "obj_to_target <= 0.07",
    "plate-slide-v3": "obj_to_target <= 0.07",
    "plate-slide-side-v3": "obj_to_target <= 0.07",
    "plate-slide-back-v3": "obj_to_target <= 0.07",
    "plate-slide-back-side-v3": "obj_to_target <= 0.07",
    "peg-insert-side-v3": "obj_to_target <= 0.07",
    "peg-unplug-side-v3": "obj_to_target <= 0.07",
    "soccer-v3": "target_to_obj <= 0.07",
    "stick-push-v3": "container within 0.12 and grasp success",
    "stick-pull-v3": "handle within 0.12 and stick inserted",
    "push-v3": "target_to_obj <= 0.05",
    "push-wall-v3": "obj_to_target <= 0.07",
    "push-back-v3": "target_to_obj <= 0.07",
    "reach-v3": "reach_dist <= 0.05",
    "reach-wall-v3": "tcp_to_object <= 0.05",
    "shelf-place-v3": "obj_to_target <= 0.07",
    "sweep-into-v3": "target_to_obj <= 0.05",
    "sweep-v3": "target_to_obj <= 0.05",
    "window-open-v3": "target_to_obj <= 0.05",
    "window-close-v3": "target_to_obj <= 0.05",
}
"""When ``info["success"]`` is 1, per task in the package's order. Distances in metres, angles in radians.

Source: ``metaworld/envs/sawyer_*_v3.py``, version 3.1.1.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(f"{name}-v3" for name in text.split())


ALL_TASKS: tuple[str, ...] = tuple(SUCCESS_CRITERIA)

_MT10 = _names(
    """
    reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side window-open
    window-close
    """
)
_MT25 = _MT10 + _names(
    """
    coffee-pull pick-out-of-hole disassemble pick-place-wall basketball stick-pull button-press-wall faucet-open
    door-lock lever-pull sweep-into faucet-close coffee-button button-press-topdown-wall dial-turn
    """
)
_ML10_TRAIN = _names(
    """
    reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open sweep basketball
    """
)
_ML45_TRAIN = _names(
    """
    assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall coffee-button
    coffee-pull coffee-push dial-turn disassemble door-close door-open drawer-close drawer-open faucet-open
    faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull pick-place-wall
    pick-out-of-hole push-back pick-place plate-slide plate-slide-side plate-slide-back plate-slide-back-side
    peg-insert-side peg-unplug-side soccer stick-push stick-pull push-wall push reach-wall reach shelf-place
    sweep-into sweep window-open window-close
    """
)

BENCHMARKS: dict[str, dict[Split, tuple[str, ...]]] = {
    "MT10": {"train": _MT10, "test": ()},
    "MT25": {"train": _MT25, "test": ()},
    "MT50": {"train": ALL_TASKS, "test": ()},
    "ML10": {"train": _ML10_TRAIN, "test": _names("drawer-open door-close shelf-place sweep-into lever-pull")},
    "ML25": {"train": _MT25, "test": _names("basketball door-close shelf-place sweep button-press")},
    "ML45": {"train": _ML45_TRAIN, "test": _names("bin-picking box-close hand-insert door-lock door-unlock")},
}
"""The benchmarks of fixed tasks. ``single``, ``MT1`` and ``ML1`` take any one task."""


def is_meta_learning(benchmark: str) -> bool:
    """Tells ML benchmarks (goal hidden, held-out split) from multi-task ones."""
    return benchmark.startswith("ML")


def split_tasks(benchmark: str, task: str | None, split: Split) -> tuple[str, ...]:
    """Gives the tasks of one split, in the package's order; empty where a benchmark has no test split.

    Args:
        benchmark: name of the benchmark.
        task: the one task of ``single``, ``MT1`` and ``ML1``; None for the others.
        split: which side; only ML benchmarks have a test side.
    """
    if benchmark in BENCHMARKS:
        return BENCHMARKS[benchmark][split]
    assert task is not None, f"{benchmark} needs a task"
    return () if split == "test" and not is_meta_learning(benchmark) else (task,)


def split_goal_seed(benchmark: str, goal_seed: int, split: Split) -> int:
    """Gives the seed of a split's goals: ML1 tests its one task on the goals of the next seed.

    Source: ``metaworld.ML1``; in ML10/25/45 the held-out tasks differ, and both splits use one seed.
    """
    return goal_seed + 1 if benchmark == "ML1" and split == "test" else goal_seed


def split_overlap(benchmark: str) -> tuple[str, ...]:
    """Gives tasks that are in both splits of a benchmark that should not share any: ``basketball-v3`` in ML25.

    With it one in five of ML25's "held-out" tasks was trained on. ML1 shares its task by definition.
    """
    splits = BENCHMARKS.get(benchmark, {"train": (), "test": ()})
    return tuple(task for task in splits["test"] if task in splits["train"])
