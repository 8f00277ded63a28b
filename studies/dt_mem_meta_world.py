"""Is a Decision Transformer with a working memory a better multi-task policy than one without, at equal size?"""

from studies.study import Arm, Scale, Study

EXPERT, MIXED = "trainer.data=[{data}/expert]", "trainer.data=[{data}/mixed]"


def demonstrations(benchmark: str, episodes: int, workers: int) -> dict[str, tuple[str, ...]]:
    """Gives two datasets of a benchmark: its experts, and its experts disturbed to every degree."""
    shared = ("env=metaworld", f"env.benchmark={benchmark}", "policy=expert", f"workers={workers}")
    return {
        "expert": (*shared, f"episodes={episodes}", "stop_at_success=true"),
        "mixed": (*shared, f"episodes={episodes}", "stop_at_success=true", "noise=[0,0.2,0.5,1.0,2.0]"),
    }


def arms(wider: int) -> tuple[Arm, ...]:
    """Gives the models on expert data, and those that a return can tell something on mixed data.

    Args:
        wider: width at which the plain model has as many parameters as the one with memory.
    """
    models = {
        "BC": ("agent=behaviour_cloning",),
        "DT": ("agent=decision_transformer",),
        "DT-same-total": ("agent=decision_transformer", f"agent.width={wider}"),
        "RMDT": ("agent=rmdt",),
        "DT-Mem": ("agent=dt_mem",),
    }
    made = [Arm(f"{name}-expert", (*overrides, EXPERT)) for name, overrides in models.items()]
    mixed = ("BC", "DT", "DT-Mem")
    return (*made, *(Arm(f"{name}-mixed", (*models[name], MIXED)) for name in mixed))


TRAINING = (
    "env=metaworld",
    "env.evaluation_preset=mw-eval-1-stop",
    "trainer=offline",
    "agent.batch_size=32",
    "agent.learning_rate=3e-4",
    "agent.balance=tasks",
    "agent.return_scale=200",
)

DT_MEM_META_WORLD = Study(
    name="dt_mem_meta_world",
    title="DT-Mem on Meta-World, goals visible",
    question="Does a working memory help a multi-task Decision Transformer on MT10, beside the same backbone without "
    "it and beside a wider one of the same total?",
    reading="With the goal in sight the state is nearly Markov: plain cloning should do as well as anything, and a "
    "large gap would rather be a sign of a defect. Runs are short (2,500 gradient steps), so that a gap may be one of "
    "learning speed as well as of skill. The models with a memory learn from three segments in a row where the others "
    "learn from one: at equal rows and updates they see three times as many steps, which alone may explain their lead. "
    "The paper's claims of transfer and of tenfold smaller models are about other tasks and sizes, and are not tested "
    "here.",
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
                "trainer.evaluation_episodes=2",
                "env.workers=sync",
            ),
            arms=(
                Arm("BC-expert", ("agent=behaviour_cloning", EXPERT)),
                Arm("DT-Mem-expert", ("agent=dt_mem", EXPERT)),
            ),
            seeds=(0,),
            datasets={
                "expert": (
                    "env=metaworld",
                    "env.benchmark=MT1",
                    "env.task=reach-v3",
                    "policy=expert",
                    "episodes=5",
                    "stop_at_success=true",
                )
            },
        ),
        "cpu": Scale(
            takes="two hours on 2 cores with jobs=2",
            common=(
                *TRAINING,
                "env.benchmark=MT10",
                "agent.warmup_steps=200",
                "trainer.total_gradient_steps=2500",
                "trainer.checkpoint_every_gradient_steps=2500",
                "trainer.evaluation_episodes=200",
                "trainer.evaluation_envs=10",
                "env.workers=sync",
            ),
            arms=arms(138),
            seeds=(0, 1, 2),
            datasets=demonstrations("MT10", 50, 2),
        ),
        "gpu": Scale(
            takes="hours on a GPU; resumable",
            common=(
                *TRAINING,
                "env.benchmark=MT10",
                "device=cuda",
                "agent.precision=bf16",
                "agent.batch_size=256",
                "agent.num_layers=4",
                "agent.num_heads=8",
                "agent.width=512",
                "trainer.total_gradient_steps=50000",
                "trainer.checkpoint_every_gradient_steps=5000",
                "trainer.evaluation_episodes=200",
                "trainer.evaluation_envs=16",
            ),
            arms=arms(544),
            seeds=(0, 1, 2),
            datasets=demonstrations("MT10", 100, 16),
        ),
    },
)
