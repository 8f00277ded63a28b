"""Is it pruning that helps, or would any sparse, regularised or renewed network do?"""

from studies.pruning import MINATAR
from studies.study import Arm, MetricsTable, Scale, Study

SPARSE = tuple(
    Arm(method, (f"agent.pruning.method={method}", "agent.pruning.sparsity=0.9"))
    for method in ("magnitude", "rigl", "set", "static")
)


def dense(redo: int, resets: int) -> tuple[Arm, ...]:
    """Gives the dense network and its cures.

    Args:
        redo: gradient steps between two renewals of dormant units.
        resets: gradient steps between two resets of the last layer.
    """
    return (
        Arm("dense"),
        Arm("weight-decay", ("agent.weight_decay=1e-2",)),
        Arm("redo", ("agent.plasticity.method=redo", f"agent.plasticity.period={redo}")),
        Arm("last-layer-resets", ("agent.plasticity.method=last_layer", f"agent.plasticity.period={resets}")),
        Arm("layer-norm", ("agent.network.layer_norm=true",)),
        Arm("pooling", ("agent.network.global_average_pooling=true",)),
    )


PRUNING_CONTROLS = Study(
    name="pruning_controls",
    title="What else keeps a network trainable",
    question="Beside gradual magnitude pruning to 90 %: what do other sparse trainings (RigL, SET, static) do, and "
    "what do weight decay, ReDo, resets of the last layer, LayerNorm and global average pooling do to the dense "
    "network?",
    reading="One small game, one small network, short runs: an arm that does nothing here may matter at the paper's "
    "scale, and the other way round. The last layer is reset four times (the default period is "
    "longer than the run); all other settings are defaults, and none was tuned. Pooling leaves 16 numbers of this "
    "network's 16 feature maps, which do not say where anything is: it has to fail at this size.",
    tables=(MetricsTable("diagnostics", "Last diagnostics", "diagnostic", ("diagnostics/",)),),
    scales={
        "smoke": Scale(
            takes="four minutes on 2 cores",
            common=(*MINATAR, "agent.learning_starts=1000", "trainer.total_env_steps=4000"),
            arms=(*dense(redo=100, resets=300), *SPARSE),
            seeds=(0,),
        ),
        "cpu": Scale(
            takes="an hour on 2 cores with jobs=2",
            common=(*MINATAR, "trainer.total_env_steps=200000"),
            arms=(*dense(redo=1000, resets=10_000), *SPARSE),
            seeds=(0, 1, 2, 3, 4),
        ),
    },
)
