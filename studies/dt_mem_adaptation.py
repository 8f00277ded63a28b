"""How many updates does adapting take, from how many demonstrations, and training how much?"""

from studies.dt_mem_hidden_goal import DT_MEM_HIDDEN_GOAL
from studies.sequence_models import adaptation_length, arms_by_demonstrations, chosen_ways
from studies.study import Arm, Scale, Study

DEMONSTRATIONS = (1, 25)
"""Of each task."""


def adapted(names: tuple[str, ...], steps: int, every: int, episodes: int) -> tuple[Arm, ...]:
    """Gives ways of adapting, for every number of demonstrations of a task.

    Args:
        names: of the ways.
        steps: gradient steps.
        every: so many an evaluation, from before the first one on.
        episodes: of each evaluation, over all tasks.
    """
    return arms_by_demonstrations(chosen_ways(*names), DEMONSTRATIONS, *adaptation_length(steps, every, episodes))


DT_MEM_ADAPTATION = Study(
    name="dt_mem_adaptation",
    title="How long DT-Mem takes to adapt",
    question="ML10, goals hidden: what do models with and without memory make of 1 or 25 demonstrations of each "
    "held-out task after 0, 500, 1,000, 1,500 and 2,000 updates, trained as a whole or by low-rank additions?",
    reading="`dt_mem_hidden_goal` compares more ways of adapting, after 300 updates; this study gives three of them "
    "time. All start from the same bases and make equal numbers of updates on equal data. Low-rank additions take ten "
    "times the learning rate of the others, as is usual for them; no rate was tuned. Evaluations during training play "
    "few episodes of each task: single numbers are coarse, trends over a line are not. With a target of a share of the "
    "best score, the table tells which way gets there first. The paper adapts far larger models to ML45; nothing here "
    "confirms or refutes it at that size.",
    target_share=0.8,
    scales={
        "smoke": Scale(
            takes="three minutes on 2 cores",
            common=(),
            before=DT_MEM_HIDDEN_GOAL.scales["smoke"].before,
            arms=adapted(("DT-Mem-full", "DT-Mem-LoRA-memory"), 20, 10, 2),
            seeds=(0,),
        ),
        "cpu": Scale(
            takes="fifty minutes on 2 cores with jobs=2",
            common=(),
            before=DT_MEM_HIDDEN_GOAL.scales["cpu"].before,
            arms=adapted(("DT-full", "DT-Mem-full", "DT-Mem-LoRA-memory"), 2000, 500, 20),
            seeds=(0, 1),
        ),
    },
)
