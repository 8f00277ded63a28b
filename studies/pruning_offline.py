"""Does pruning help where no new data come: CQL on the replay of a DQN that is done?"""

from studies.pruning import MINATAR
from studies.study import Arm, Scale, Stage, Study

OFFLINE = (
    "agent=cql",
    "agent.network.kind=minatar_cnn",
    "agent.learning_rate=3e-4",
    "env=minatar",
    "env.game=breakout",
    "trainer=offline",
    "trainer.data=['{run:DQN}']",
)


def arms(sparsities: tuple[float, ...]) -> tuple[Arm, ...]:
    """Gives the dense arm and one for every sparsity."""
    pruned = (Arm(f"pruned-{sparsity:.0%}", (f"agent.pruning.sparsity={sparsity}",)) for sparsity in sparsities)
    return (Arm("dense"), *pruned)


PRUNING_OFFLINE = Study(
    name="pruning_offline",
    title="Gradual magnitude pruning of CQL, offline",
    question="Trained by CQL on the whole replay of a finished DQN run, does a network that is pruned score more than "
    "a dense one?",
    reading="The data are those of one small run per seed, of all the qualities it went through. The paper trains on "
    "5 % of DQN's own Atari replay, which is another matter. Both arms of a seed see the same data.",
    scales={
        "smoke": Scale(
            takes="two minutes on 2 cores",
            common=(*OFFLINE, "trainer.total_gradient_steps=400", "trainer.checkpoint_every_gradient_steps=400"),
            arms=arms((0.9,)),
            seeds=(0,),
            before=(
                Stage(
                    arms=(Arm("DQN"),),
                    common=(*MINATAR, "agent.learning_starts=1000", "trainer.total_env_steps=4000"),
                ),
            ),
        ),
        "cpu": Scale(
            takes="an hour on 2 cores with jobs=2",
            common=(*OFFLINE, "trainer.total_gradient_steps=40000", "trainer.checkpoint_every_gradient_steps=10000"),
            arms=arms((0.9, 0.95, 0.99)),
            seeds=(0, 1, 2, 3, 4),
            before=(Stage(arms=(Arm("DQN"),), common=(*MINATAR, "trainer.total_env_steps=200000")),),
        ),
    },
)
