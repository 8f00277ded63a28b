"""Tasks one after the other: what is forgotten, and does a memory or a part of one's own for each task keep it?"""

from studies.study import Arm, Probe, Scale, Stage, Study

GROUPS = (
    ("reach-v3", "push-v3"),
    ("drawer-close-v3", "button-press-topdown-v3"),
    ("window-open-v3", "window-close-v3"),
)
TRAINING = (
    "env=metaworld",
    "env.benchmark=MT10",
    "env.evaluation_preset=mw-eval-1-stop",
    "env.workers=sync",
    "trainer=offline",
    "trainer.data=[{data}/expert]",
    "agent.batch_size=32",
    "agent.learning_rate=3e-4",
    "agent.balance=tasks",
    "agent.return_scale=200",
)
MODELS = {"DT": ("agent=decision_transformer",), "DT-Mem": ("agent=dt_mem",)}


def named(tasks: tuple[str, ...]) -> str:
    """Gives a group of tasks as an override's value."""
    return f"[{','.join(tasks)}]"


def sequence(groups: tuple[tuple[str, ...], ...], steps: int, evaluation: tuple[str, ...]) -> tuple[Stage, ...]:
    """Gives the stages that train every model on the groups but the last, one after the other.

    Args:
        groups: of tasks.
        steps: gradient steps on each.
        evaluation: keys of the first stage's evaluations.
    """
    first = Stage(
        arms=tuple(Arm(f"{name}-group-1", overrides) for name, overrides in MODELS.items()),
        common=(*TRAINING, *evaluation, f"trainer.tasks={named(groups[0])}", f"trainer.total_gradient_steps={steps}"),
    )
    return (first, *(Stage(arms=following(groups, number, steps)) for number in range(2, len(groups))))


def following(groups: tuple[tuple[str, ...], ...], number: int, steps: int) -> tuple[Arm, ...]:
    """Gives the arms that go on with a group: all parameters, or low-rank additions alone."""
    keys = ("data=[{data}/expert]", f"tasks={named(groups[number - 1])}", f"total_gradient_steps={steps}")
    return tuple(
        Arm(f"{name}-group-{number}", ("method=full", *keys), base=f"{name}-group-{number - 1}") for name in MODELS
    )


def low_rank(groups: tuple[tuple[str, ...], ...], steps: int) -> tuple[Arm, ...]:
    """Gives the control that cannot forget: additions of its own for the last group, on an untouched base."""
    keys = ("data=[{data}/expert]", f"tasks={named(groups[-1])}", f"total_gradient_steps={steps}")
    return (
        Arm("DT-LoRA", ("method=lora", "where=transformer", *keys), base="DT-group-1"),
        Arm("DT-Mem-LoRA", ("method=lora", "where=both", *keys), base="DT-Mem-group-1"),
    )


def experts(episodes: int, workers: int) -> dict[str, tuple[str, ...]]:
    """Gives the dataset: MT10's experts."""
    shared = ("env=metaworld", "env.benchmark=MT10", "policy=expert", "stop_at_success=true")
    return {"expert": (*shared, f"episodes={episodes}", f"workers={workers}")}


def scale(
    takes: str, steps: int, episodes: int, seeds: tuple[int, ...], evaluation: tuple[str, ...], workers: int
) -> Scale:
    """Gives the study at one size."""
    first, *others = sequence(GROUPS, steps, evaluation)
    return Scale(
        takes=takes,
        common=(),
        before=(Stage(first.arms, first.common, experts(episodes, workers)), *others),
        arms=(*following(GROUPS, len(GROUPS), steps), *low_rank(GROUPS, steps)),
        seeds=seeds,
    )


DT_MEM_FORGETTING = Study(
    name="dt_mem_forgetting",
    title="Forgetting of tasks trained one after the other",
    question="Trained on groups of tasks one after the other, how much of the earlier groups do a Decision "
    "Transformer and DT-Mem keep, beside low-rank additions that leave their base untouched?",
    reading="The paper argues from forgetting but trains all tasks together, so nothing here can contradict a number "
    "of it. Every score is success over all tasks of MT10, of which four were never trained on; the table of tasks "
    "(runs.csv) shows the groups apart: group 1 is reach and push, group 2 drawer-close and button-press-topdown, "
    "group 3 window-open and window-close. Backward transfer is the success on a group after the last one was "
    "trained, minus that right after its own.",
    probes=(Probe("MT10 after the last group", ()),),
    scales={
        "smoke": scale(
            "four minutes on 2 cores",
            20,
            2,
            (0,),
            (
                "agent.width=32",
                "agent.warmup_steps=5",
                "trainer.checkpoint_every_gradient_steps=20",
                "trainer.evaluation_episodes=10",
            ),
            1,
        ),
        "cpu": scale(
            "two hours on 2 cores with jobs=2",
            1500,
            50,
            (0, 1, 2),
            (
                "agent.warmup_steps=200",
                "trainer.checkpoint_every_gradient_steps=1500",
                "trainer.evaluation_episodes=200",
                "trainer.evaluation_envs=10",
            ),
            2,
        ),
        "gpu": scale(
            "hours on a GPU; resumable",
            20000,
            100,
            (0, 1, 2),
            (
                "device=cuda",
                "agent.precision=bf16",
                "agent.batch_size=256",
                "trainer.checkpoint_every_gradient_steps=5000",
                "trainer.evaluation_episodes=200",
                "trainer.evaluation_envs=16",
            ),
            16,
        ),
    },
)
