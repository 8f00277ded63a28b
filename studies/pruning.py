"""Is a network whose smallest weights are removed during training a better one than the dense network it started as?"""

from studies.study import Arm, MetricsTable, Scale, Study

MINATAR = (
    "agent=dqn_minatar",
    "env=minatar",
    "env.game=breakout",
    "trainer.checkpoint_every_env_steps=50000",
)


def arms(widths: tuple[int, ...], sparsities: tuple[float, ...]) -> tuple[Arm, ...]:
    """Gives an arm for every width, dense and pruned."""
    made = []
    for width in widths:
        network = f"agent.network.width={width}"
        made.append(Arm(f"dense-x{width}", (network,)))
        for sparsity in sparsities:
            made.append(Arm(f"pruned-{sparsity:.0%}-x{width}", (network, f"agent.pruning.sparsity={sparsity}")))
    return tuple(made)


PRUNING = Study(
    name="pruning",
    title="Gradual magnitude pruning of DQN",
    question="Does DQN learn more with a network that is pruned during training (Obando-Ceron et al. 2024) than with "
    "the dense network of the same width?",
    reading="The paper reports its gains (33 % at width 3, up to 60 % over the dense network of width 1; "
    "interquartile means of human-normalised scores) at 40 million frames on 15 Atari games with the IMPALA network. "
    "What is seen here was seen here: one small game, a small network, runs that are hundreds of times shorter. It "
    "can show that pruning to this sparsity costs nothing, or costs something, at this size; it cannot confirm or "
    "refute the paper. Only the replay ratio of 0.25 was run: at 1 the same runs would have taken eight hours.",
    tables=(
        MetricsTable("layers", "Final sparsity of each layer", "layer", ("agent/sparsity/",)),
        MetricsTable("diagnostics", "Last diagnostics", "diagnostic", ("diagnostics/",)),
    ),
    scales={
        "smoke": Scale(
            takes="two minutes on 2 cores",
            common=(*MINATAR, "agent.learning_starts=1000", "trainer.total_env_steps=8000"),
            arms=arms((1,), (0.95,)),
            seeds=(0, 1),
        ),
        "cpu": Scale(
            takes="about two hours on 2 cores with jobs=2",
            common=(*MINATAR, "trainer.total_env_steps=200000"),
            arms=(*arms((1,), (0.9, 0.95, 0.99)), *arms((4,), (0.95,))),
            seeds=(0, 1, 2, 3, 4),
        ),
        "gpu": Scale(
            takes="hours on a GPU; resumable",
            common=(
                "agent=dqn",
                "agent.network.kind=impala_cnn",
                "agent.precision=bf16",
                "env=atari",
                "env.game=breakout",
                "device=cuda",
                "trainer.total_env_steps=1_400_000",
                "trainer.checkpoint_every_env_steps=140_000",
            ),
            arms=arms((3,), (0.95,)),
            seeds=(0, 1, 2, 3, 4),
        ),
    },
)
