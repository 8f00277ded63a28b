"""A third of ML45's training tasks, goals unseen: what is done of the others, and what do demonstrations add?"""

from envs.metaworld.tasks import split_tasks
from studies.dt_mem_hidden_goal import BASES_ON_CPU, TRAINING, hidden
from studies.sequence_models import LARGE, adaptation_length, adapted_arms, chosen_ways, model_arms
from studies.study import Arm, Probe, Scale, Stage, Study

TASKS = split_tasks("ML45", None, "train")
SUBSET = TASKS[::3]
"""The tasks that are trained on: every third."""
GROUPS = {"15 tasks trained on": SUBSET, "the 30 others": tuple(task for task in TASKS if task not in SUBSET)}
BASES = ("DT", "DT-Mem")
TRAIN = "protocol=mw-eval-1-train"


def adapted(steps: int, every: int, episodes: int) -> tuple[Arm, ...]:
    """Gives ways of adapting to the five test tasks, at equal updates.

    Args:
        steps: gradient steps.
        every: so many an evaluation, from before the first one on.
        episodes: of each evaluation, over all five tasks.
    """
    names = ("DT-full", "DT-scratch", "DT-Mem-full", "DT-Mem-LoRA-memory", "DT-Mem-LoRA-both")
    return adapted_arms(chosen_ways(*names), "data=[{data}/test]", *adaptation_length(steps, every, episodes))


def bases(windows: int, *keys: str, data: dict[str, tuple[str, ...]]) -> Stage:
    """Gives the models that are adapted, trained on the subset."""
    subset = f"trainer.tasks=[{','.join(SUBSET)}]"
    return Stage(model_arms(windows, *BASES), (*TRAINING, "env.benchmark=ML45", subset, *keys), data)


DT_MEM_ML45 = Study(
    name="dt_mem_ml45",
    title="DT-Mem on a subset of ML45, goals hidden",
    question="Trained on a third of ML45's training tasks with goals that must be inferred: how far do models with and "
    "without memory get on those tasks, on the benchmark's others, and on its test tasks, before and after "
    "demonstrations?",
    reading="The paper trains far larger models on all 45 tasks; a subset says what a subset can. Some of the other "
    "tasks are close kin of trained ones (the plates, handles and buttons), so success there is no proof of general "
    "skill. The 25 demonstrations of each test task are of other goals than those played in evaluations. All ways of "
    "adapting take equal numbers of updates on equal data; the table of learning speed tells success after each "
    "hundred of them, of few episodes each. Low-rank additions take ten times the learning rate of the others, as is "
    "usual for them; no rate was tuned.",
    target_share=0.8,
    probes=(
        Probe("", (TRAIN, "num_episodes=450"), BASES, GROUPS),
        Probe("memory not read", (TRAIN, "num_episodes=450", "memory_use=zeroed_read"), ("DT-Mem",), GROUPS),
    ),
    scales={
        "smoke": Scale(
            takes="five minutes on 2 cores",
            common=(),
            before=(
                bases(
                    32,
                    "env.workers=sync",
                    "agent.width=32",
                    "agent.warmup_steps=10",
                    "trainer.total_gradient_steps=40",
                    "trainer.checkpoint_every_gradient_steps=40",
                    "trainer.evaluation_episodes=5",
                    data=hidden("ML45", 2, 1),
                ),
            ),
            arms=adapted(20, 10, 5),
            seeds=(0,),
            probe_episodes=45,
        ),
        "cpu": Scale(
            takes="an hour on 2 cores with jobs=2",
            common=(),
            before=(
                bases(
                    16,
                    *BASES_ON_CPU,
                    data=hidden("ML45", 2, 25),
                ),
            ),
            arms=adapted(500, 100, 20),
            seeds=(0, 1),
            probe_episodes=180,
        ),
        "gpu": Scale(
            takes="an hour on a GPU; resumable",
            common=(),
            before=(
                bases(
                    256,
                    *LARGE,
                    "trainer.total_gradient_steps=20000",
                    "trainer.checkpoint_every_gradient_steps=5000",
                    "trainer.evaluation_episodes=50",
                    "trainer.evaluation_envs=16",
                    data=hidden("ML45", 16, 100),
                ),
            ),
            arms=adapted(2000, 100, 125),
            seeds=(0, 1, 2),
        ),
    },
)
