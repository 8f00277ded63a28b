"""Does a working memory carry what the context cannot: a cue shown once, needed thirty to ninety steps later?"""

from studies.study import Arm, Probe, Scale, Study

SMALL = (
    "env=memory_tasks",
    "env.task=t_maze",
    "env.max_wasted_steps=0",
    "trainer=offline",
    "trainer.data=[{data}/t_maze]",
    "agent.context_length=10",
    "agent.width=32",
    "agent.num_layers=1",
    "agent.dropout=0",
    "agent.batch_size=32",
    "agent.learning_rate=2e-3",
    "agent.warmup_steps=50",
    "agent.max_grad_norm=1",
    "agent.return_scale=1",
)
STREAM = ("agent.num_segments=4",)


def mazes(shortest: int, longest: int, episodes: int) -> dict[str, tuple[str, ...]]:
    """Gives the dataset: mazes of these lengths, walked as they should be."""
    return {
        "t_maze": (
            "env=memory_tasks",
            "env.task=t_maze",
            f"env.min_corridor={shortest}",
            f"env.max_corridor={longest}",
            "env.max_wasted_steps=0",
            "policy=optimal",
            f"episodes={episodes}",
        )
    }


ARMS = (
    Arm("DT", ("agent=decision_transformer",)),
    Arm("DT-Mem", ("agent=dt_mem", "agent.memory.num_slots=16", "agent.memory.num_heads=4", *STREAM)),
    Arm("RMDT", ("agent=rmdt", *STREAM)),
)
WITH_MEMORY = ("DT-Mem", "RMDT")

DT_MEM_T_MAZE = Study(
    name="dt_mem_t_maze",
    title="DT-Mem in a T-maze",
    question="A cue at the first step tells which way to turn at the end of a corridor of 30 to 90 steps; the context "
    "is 10 steps. Does a memory carry it, and is it the memory that does?",
    reading="This is a positive control of our own, not an experiment of the paper: without it, a null result "
    "elsewhere would say nothing. A policy without memory turns the right way half of the time. The models with a "
    "memory learn from four segments in a row where the plain one learns from one, at equal rows and updates; no "
    "number of steps tells a context of ten what was shown thirty steps before. The training data "
    "hold corridors from 1 step on, so that what is to be remembered can be learned over short distances first. The "
    "probes play the same mazes with the memory set back at every segment, exchanged between episodes, or not read: "
    "where the score then falls to one half, it is the memory's content that was used.",
    probes=(
        Probe("memory carried", ()),
        Probe("reset at each segment", ("memory_use=reset",), WITH_MEMORY),
        Probe("exchanged between episodes", ("memory_use=shuffled",), WITH_MEMORY),
        Probe("not read", ("memory_use=zeroed_read",), WITH_MEMORY),
    ),
    scales={
        "smoke": Scale(
            takes="two minutes on 2 cores",
            common=(
                *SMALL,
                "env.min_corridor=6",
                "env.max_corridor=12",
                "agent.context_length=5",
                "trainer.total_gradient_steps=100",
                "trainer.checkpoint_every_gradient_steps=100",
            ),
            arms=(
                Arm("DT", ("agent=decision_transformer",)),
                Arm("DT-Mem", ("agent=dt_mem", "agent.num_segments=3")),
                Arm("RMDT", ("agent=rmdt", "agent.num_segments=3")),
            ),
            seeds=(0,),
            datasets=mazes(1, 12, 60),
        ),
        "cpu": Scale(
            takes="half an hour on 2 cores with jobs=2",
            common=(
                *SMALL,
                "env.min_corridor=30",
                "env.max_corridor=90",
                "trainer.total_gradient_steps=4000",
                "trainer.checkpoint_every_gradient_steps=500",
                "trainer.evaluation_episodes=null",
                "trainer.evaluation_envs=20",
            ),
            arms=ARMS,
            seeds=(0, 1, 2),
            datasets=mazes(1, 90, 1000),
        ),
        "gpu": Scale(
            takes="an hour on a GPU; resumable",
            common=(
                *SMALL,
                "env.min_corridor=30",
                "env.max_corridor=90",
                "device=cuda",
                "agent.batch_size=256",
                "trainer.total_gradient_steps=10000",
                "trainer.checkpoint_every_gradient_steps=1000",
                "trainer.evaluation_episodes=null",
                "trainer.evaluation_envs=20",
            ),
            arms=ARMS,
            seeds=(0, 1, 2, 3, 4),
            datasets=mazes(1, 90, 5000),
        ),
    },
)
