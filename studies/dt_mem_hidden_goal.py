"""Goals unseen, tasks held out: what does a memory add, and which part must be trained to adapt?"""

from studies.sequence_models import LARGE, NOT_AT_START, WAYS, adaptation_length, arms_by_demonstrations, model_arms
from studies.study import Arm, Probe, Scale, Stage, Study

TRAINING = (
    "env=metaworld",
    "env.evaluation_preset=mw-eval-1-stop",
    "trainer=offline",
    "trainer.data=[{data}/train]",
    "agent.learning_rate=3e-4",
    "agent.balance=tasks",
    "agent.return_scale=200",
    "agent.use_reward_tokens=true",
)

BASES_ON_CPU = (
    "env.workers=sync",
    "agent.warmup_steps=200",
    "trainer.total_gradient_steps=2500",
    "trainer.checkpoint_every_gradient_steps=2500",
    "trainer.evaluation_episodes=50",
    "trainer.evaluation_envs=10",
)
"""How the models that are adapted are trained at scale cpu."""


def hidden(benchmark: str, workers: int, train_episodes: int) -> dict[str, tuple[str, ...]]:
    """Gives the datasets: the expert saw the goal, the observations do not show it.

    The 25 demonstrations of the held-out tasks are of their last goals, evaluations play the first ones.

    Args:
        benchmark: of meta-learning.
        workers: processes that collect.
        train_episodes: of each training task.
    """
    shared = ("env=metaworld", f"env.benchmark={benchmark}", "policy=expert", "store_goal=hidden")
    rest = ("stop_at_success=true", f"workers={workers}")
    return {
        "train": (*shared, "split=train", f"episodes={train_episodes}", *rest),
        "test": (*shared, "split=test", "episodes=25", "first_goal=25", *rest),
    }


def adapted(steps: int, every: int, demonstrations: tuple[int, ...], episodes: int) -> tuple[Arm, ...]:
    """Gives every way of adapting, at equal updates, for every number of demonstrations of a task.

    Args:
        steps: gradient steps.
        every: so many an evaluation; before the first one the base has been evaluated already.
        demonstrations: of each task.
        episodes: of each evaluation, over all tasks.
    """
    return arms_by_demonstrations(WAYS, demonstrations, *adaptation_length(steps, every, episodes), NOT_AT_START)


BASES, REMEMBERING = ("DT", "RMDT", "DT-Mem"), ("RMDT", "DT-Mem")

DT_MEM_HIDDEN_GOAL = Study(
    name="dt_mem_hidden_goal",
    title="DT-Mem on Meta-World, goals hidden",
    question="On tasks held out of training, with goals that must be inferred: how far do models with and without "
    "memory get before adaptation, and after k demonstrations, when only some of their parameters are trained?",
    reading="All ways of adapting take equal numbers of updates on equal data; the controls which the paper lacks "
    "(the whole model, low-rank additions to the transformer, heads alone, from scratch) stand beside its own. "
    "Low-rank additions, heads and slots take ten times the learning rate of the others, as is usual for them; no rate "
    "was tuned. Demonstrations are of other goals than those played in evaluations. The probes tell how the models do "
    "that are adapted: on their training tasks, and on the held-out ones without any demonstration. The paper adapts "
    "far larger models to five tasks of ML45; a difference here confirms or refutes nothing at that size.",
    target_share=0.8,
    probes=(
        Probe("training tasks", ("protocol=mw-eval-1-train", "num_episodes=100"), BASES),
        Probe("held-out tasks, no demonstration", ("num_episodes=50",), BASES),
        Probe("the same, memory not read", ("num_episodes=50", "memory_use=zeroed_read"), REMEMBERING),
    ),
    scales={
        "smoke": Scale(
            takes="three minutes on 2 cores",
            common=(),
            before=(
                Stage(
                    arms=model_arms(32, "DT-Mem"),
                    common=(
                        *TRAINING,
                        "env.benchmark=ML1",
                        "env.task=reach-v3",
                        "env.workers=sync",
                        "agent.width=32",
                        "agent.warmup_steps=10",
                        "trainer.total_gradient_steps=60",
                        "trainer.checkpoint_every_gradient_steps=60",
                        "trainer.evaluation_episodes=2",
                    ),
                    datasets={
                        split: (
                            "env=metaworld",
                            "env.benchmark=ML1",
                            "env.task=reach-v3",
                            "policy=expert",
                            f"split={split}",
                            "episodes=5",
                            "first_goal=25",
                            "stop_at_success=true",
                        )
                        for split in ("train", "test")
                    },
                ),
            ),
            arms=tuple(
                Arm(name, (*keys, "data=[{data}/test]", "total_gradient_steps=20", "evaluation_episodes=2"), "DT-Mem")
                for name, keys in {"LoRA": ("method=lora",), "full": ("method=full",)}.items()
            ),
            seeds=(0,),
            probe_episodes=2,
        ),
        "cpu": Scale(
            takes="an hour on 2 cores with jobs=2",
            common=(),
            before=(
                Stage(
                    arms=model_arms(16, "DT", "DT-Mem"),
                    common=(
                        *TRAINING,
                        "env.benchmark=ML10",
                        *BASES_ON_CPU,
                    ),
                    datasets=hidden("ML10", 2, 50),
                ),
            ),
            arms=adapted(300, 300, (1, 5, 25), 15),
            seeds=(0, 1),
        ),
        "gpu": Scale(
            takes="hours on a GPU; resumable",
            common=(),
            before=(
                Stage(
                    arms=model_arms(256, "DT", "RMDT", "DT-Mem"),
                    common=(
                        *TRAINING,
                        "env.benchmark=ML45",
                        *LARGE,
                        "trainer.total_gradient_steps=50000",
                        "trainer.checkpoint_every_gradient_steps=5000",
                        "trainer.evaluation_episodes=50",
                        "trainer.evaluation_envs=16",
                    ),
                    datasets=hidden("ML45", 16, 100),
                ),
            ),
            arms=adapted(2000, 100, (1, 5, 25), 125),
            seeds=(0, 1, 2),
        ),
    },
)
