"""Is a Decision Transformer with a working memory a better multi-task policy than one without, at equal size?"""

from studies.sequence_models import LARGE, models
from studies.study import Arm, Probe, Scale, Study

WIDER_ON_CPU = 138
"""Width at which the plain model has as many parameters as the one with memory (`sizes.solve_width`)."""
EXPERT, MIXED = "trainer.data=[{data}/expert]", "trainer.data=[{data}/mixed]"


def demonstrations(benchmark: str, episodes: int, workers: int) -> dict[str, tuple[str, ...]]:
    """Gives two datasets of a benchmark: its experts, and its experts disturbed to every degree."""
    shared = ("env=metaworld", f"env.benchmark={benchmark}", "policy=expert", f"workers={workers}")
    return {
        "expert": (*shared, f"episodes={episodes}", "stop_at_success=true"),
        "mixed": (*shared, f"episodes={episodes}", "stop_at_success=true", "noise=[0,0.2,0.5,1.0,2.0]"),
    }


REACH = (
    "env=metaworld",
    "env.benchmark=MT1",
    "env.task=reach-v3",
    "policy=expert",
    "episodes=5",
    "stop_at_success=true",
)
"""The dataset of scale smoke."""


def arms(windows: int, *, narrower: int, wider: int) -> tuple[Arm, ...]:
    """Gives the models on expert data, some of them in other sizes, and those on mixed data that learn from returns.

    Args:
        windows: of one context each, in an update.
        narrower: width of the small models.
        wider: width at which the plain model has as many parameters as the one with memory.
    """
    named = models(windows)
    sizes = {
        "DT-small": (*named["DT"], f"agent.width={narrower}"),
        "DT-same-total": (*named["DT"], f"agent.width={wider}"),
        "DT-Mem-small": (*named["DT-Mem"], f"agent.width={narrower}"),
    }
    experts = tuple(Arm(f"{name}-expert", (*keys, EXPERT)) for name, keys in (named | sizes).items())
    return (*experts, *(Arm(f"{name}-mixed", (*named[name], MIXED)) for name in ("BC", "DT", "DT-Mem")))


TRAINING = (
    "env=metaworld",
    "env.evaluation_preset=mw-eval-1-stop",
    "trainer=offline",
    "agent.learning_rate=3e-4",
    "agent.balance=tasks",
    "agent.return_scale=200",
)


def on_cpu(evaluate_every: int) -> tuple[str, ...]:
    """Gives the overrides of scale cpu.

    Args:
        evaluate_every: gradient steps between evaluations.
    """
    return (
        *TRAINING,
        "env.benchmark=MT10",
        "agent.warmup_steps=200",
        "trainer.total_gradient_steps=2500",
        "trainer.checkpoint_every_gradient_steps=500",
        f"trainer.evaluate_every_gradient_steps={evaluate_every}",
        "trainer.evaluation_episodes=20",
        "trainer.evaluation_envs=10",
        "env.workers=sync",
    )


DT_MEM_META_WORLD = Study(
    name="dt_mem_meta_world",
    title="DT-Mem on Meta-World, goals visible",
    question="Does a working memory help a multi-task Decision Transformer on MT10, beside the same backbone without "
    "it and beside a wider one of the same total?",
    reading="With the goal in sight the state is nearly Markov: plain cloning should do as well as anything, and a "
    "large gap would rather be a sign of a defect. Runs are short, so that a gap may be one of learning speed as well "
    "as of skill: the table of learning speed tells updates and seconds apart. All models learn from equally many "
    "windows of one context in an update; those with a memory from pairs of consecutive ones, through which gradients "
    "pass. A memory that is not read is one whose model must do with its context alone. The paper's claims of transfer "
    "and of tenfold smaller models are about other tasks and sizes, and are not tested here: the small models have "
    "about three tenths of the parameters of the others. An earlier version of this study, in which the models with a "
    "memory saw three times as many windows, had DT-Mem at 0.92 and the wider plain model at 0.81: that lead came from "
    "the windows.",
    probes=(
        Probe("in the end", ("num_episodes=200",)),
        Probe("memory not read", ("num_episodes=200", "memory_use=zeroed_read"), ("RMDT-expert", "DT-Mem-expert")),
    ),
    target_share=0.8,
    scales={
        "smoke": Scale(
            takes="two minutes on 2 cores",
            common=(
                *TRAINING,
                "env.benchmark=MT1",
                "env.task=reach-v3",
                "agent.width=32",
                "agent.warmup_steps=10",
                "trainer.total_gradient_steps=60",
                "trainer.checkpoint_every_gradient_steps=60",
                "trainer.evaluate_every_gradient_steps=30",
                "trainer.evaluation_episodes=2",
                "env.workers=sync",
            ),
            arms=tuple(Arm(f"{name}-expert", (*models(32)[name], EXPERT)) for name in ("BC", "DT-Mem")),
            seeds=(0,),
            probe_episodes=2,
            datasets={"expert": REACH},
        ),
        "cpu": Scale(
            takes="two hours on 2 cores with jobs=2",
            common=on_cpu(500),
            arms=arms(16, narrower=64, wider=WIDER_ON_CPU),
            seeds=(0, 1, 2),
            probe_episodes=100,
            datasets=demonstrations("MT10", 50, 2),
        ),
        "gpu": Scale(
            takes="hours on a GPU; resumable",
            common=(
                *TRAINING,
                "env.benchmark=MT10",
                *LARGE,
                "trainer.total_gradient_steps=50000",
                "trainer.checkpoint_every_gradient_steps=5000",
                "trainer.evaluate_every_gradient_steps=2500",
                "trainer.evaluation_episodes=100",
                "trainer.evaluation_envs=16",
            ),
            arms=arms(256, narrower=256, wider=544),
            seeds=(0, 1, 2),
            datasets=demonstrations("MT10", 100, 16),
        ),
    },
)
