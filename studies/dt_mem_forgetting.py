"""Tasks one after the other: what is forgotten, and does a memory or a part of one's own for each task keep it?"""

from studies.sequence_models import NEW_PARTS_RATE, NOT_AT_START, adaptation_length, models
from studies.study import Arm, Probe, Scale, Stage, Study, Transfer

GROUPS = {
    "reach, push": ("reach-v3", "push-v3"),
    "drawer-close, button-press": ("drawer-close-v3", "button-press-topdown-v3"),
    "window-open, window-close": ("window-open-v3", "window-close-v3"),
}
MODELS = {"DT": "transformer", "DT-Mem": "both"}
"""Of each model, where low-rank additions are put."""
LAST = len(GROUPS)
TRAINING = (
    "env=metaworld",
    "env.benchmark=MT10",
    "env.evaluation_preset=mw-eval-1-stop",
    "env.workers=sync",
    "trainer=offline",
    "trainer.data=[{data}/expert]",
    "agent.learning_rate=3e-4",
    "agent.balance=tasks",
    "agent.return_scale=200",
)


def tasks(number: int) -> str:
    """Gives the tasks of a group, counted from 1, as an override's value."""
    return f"[{','.join(list(GROUPS.values())[number - 1])}]"


def full(model: str, number: int) -> str:
    """Names the arm that has trained all parameters on the groups up to this one."""
    return f"{model}-group-{number}"


def added(model: str, number: int) -> str:
    """Names the arm that has additions of its own for this group, on the model of the first group."""
    return f"{model}-LoRA-{number}"


def adapted(number: int, steps: int, episodes: int) -> tuple[Arm, ...]:
    """Gives the arms that learn a group after the first: with all parameters, or with low-rank additions alone.

    Args:
        number: of the group.
        steps: gradient steps.
        episodes: played after the last one, over all of MT10's tasks.
    """
    keys = (
        "data=[{data}/expert]",
        f"tasks={tasks(number)}",
        *adaptation_length(steps, steps, episodes),
        NOT_AT_START,
    )
    whole = (Arm(full(model, number), ("method=full", *keys), base=full(model, number - 1)) for model in MODELS)
    apart = (
        Arm(added(model, number), ("method=lora", f"where={where}", NEW_PARTS_RATE, *keys), base=full(model, 1))
        for model, where in MODELS.items()
    )
    return (*whole, *apart)


def scale(
    takes: str,
    *,
    steps: int,
    windows: int,
    demonstrations: int,
    seeds: tuple[int, ...],
    keys: tuple[str, ...],
    workers: int,
    episodes: int,
    probe_episodes: int,
) -> Scale:
    """Gives the study at one size.

    Args:
        takes: how long, and on what.
        steps: gradient steps on each group.
        windows: in each update, of every model.
        demonstrations: of each task (unit: episodes).
        seeds: of the runs.
        keys: of the first group's runs, beyond those of every size.
        workers: processes that collect.
        episodes: played at the end of each run, over all tasks.
        probe_episodes: played for the tables by group, over all tasks.
    """
    data = ("env=metaworld", "env.benchmark=MT10", "policy=expert", "stop_at_success=true")
    length = (
        f"trainer.tasks={tasks(1)}",
        f"trainer.total_gradient_steps={steps}",
        f"trainer.checkpoint_every_gradient_steps={steps}",
        f"trainer.evaluation_episodes={episodes}",
    )
    first = Stage(
        arms=tuple(Arm(full(model, 1), models(windows)[model]) for model in MODELS),
        common=(*TRAINING, *keys, *length),
        datasets={"expert": (*data, f"episodes={demonstrations}", f"workers={workers}")},
    )
    between = (Stage(arms=adapted(number, steps, episodes)) for number in range(2, LAST))
    return Scale(
        takes=takes,
        common=(),
        before=(first, *between),
        arms=adapted(LAST, steps, episodes),
        seeds=seeds,
        probe_episodes=probe_episodes,
    )


def transfers() -> tuple[Transfer, ...]:
    """Gives each model trained on and on, and each with additions of its own for every group."""
    numbers = range(1, LAST + 1)
    made = []
    for model in MODELS:
        own = tuple(full(model, number) for number in numbers)
        apart = (full(model, 1), *(added(model, number) for number in numbers[1:]))
        made += [Transfer(f"{model}, all parameters", "", own, (own[-1],) * LAST)]
        made += [Transfer(f"{model}, additions of each group's own", "", apart, apart)]
    return tuple(made)


EVERY_ARM = tuple(
    name
    for model in MODELS
    for number in range(1, LAST + 1)
    for name in (full(model, number), *((added(model, number),) if number > 1 else ()))
)

DT_MEM_FORGETTING = Study(
    name="dt_mem_forgetting",
    title="Forgetting of tasks trained one after the other",
    question="Trained on groups of tasks one after the other, how much of the earlier groups do a Decision "
    "Transformer and DT-Mem keep, beside low-rank additions that leave their base untouched?",
    reading="The paper argues from forgetting but trains all tasks together, so nothing here can contradict a number "
    "of it. Additions of a group's own, on the model of the first group, cannot forget: with them the question is how "
    "well the later groups are learned. They take a learning rate ten times that of all parameters, as is usual; "
    "neither was tuned. The comparison at the top is over all of MT10, of which four tasks were never trained on; the "
    "tables below it tell the groups apart.",
    probes=(Probe("", (), EVERY_ARM, GROUPS),),
    transfers=transfers(),
    scales={
        "smoke": scale(
            "three minutes on 2 cores with jobs=2",
            steps=20,
            windows=32,
            demonstrations=2,
            seeds=(0,),
            keys=("agent.width=32", "agent.warmup_steps=5", "trainer.evaluation_envs=10"),
            workers=1,
            episodes=10,
            probe_episodes=10,
        ),
        "cpu": scale(
            "half an hour on 2 cores with jobs=2",
            steps=500,
            windows=16,
            demonstrations=50,
            seeds=(0, 1),
            keys=("agent.warmup_steps=50", "trainer.evaluation_envs=10"),
            workers=2,
            episodes=10,
            probe_episodes=40,
        ),
        "gpu": scale(
            "hours on a GPU; resumable",
            steps=20000,
            windows=256,
            demonstrations=100,
            seeds=(0, 1, 2),
            keys=("device=cuda", "agent.precision=bf16", "trainer.evaluation_envs=16"),
            workers=16,
            episodes=10,
            probe_episodes=200,
        ),
    },
)
