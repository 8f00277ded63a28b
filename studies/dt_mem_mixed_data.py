"""Data of every quality: what do returns, more parameters and a memory add to cloning?"""

from studies.dt_mem_meta_world import DT_MEM_META_WORLD, MIXED, REACH, WIDER_ON_CPU, demonstrations, on_cpu
from studies.sequence_models import NOT_AT_START, models
from studies.study import Arm, Probe, Scale, Study

CACHE = "agent.memory.cached_tokens=60"
"""As many tokens as a segment has: 20 steps of an action, a return and an observation."""


def arms(windows: int, wider: int) -> tuple[Arm, ...]:
    """Gives the models.

    Args:
        windows: of one context each, in an update.
        wider: width at which the plain model has as many parameters as the one with memory.
    """
    named = models(windows)
    all_of_them = {
        "BC": named["BC"],
        "DT": named["DT"],
        "DT-same-total": (*named["DT"], f"agent.width={wider}"),
        "RMDT": named["RMDT"],
        "RMDT-cache": (*named["RMDT"], CACHE),
        "DT-Mem": named["DT-Mem"],
    }
    return tuple(Arm(name, (*keys, MIXED)) for name, keys in all_of_them.items())


DT_MEM_MIXED_DATA = Study(
    name="dt_mem_mixed_data",
    title="DT-Mem on mixed data, goals visible",
    question="Four fifths of the demonstrations of MT10 are disturbed by noise of deviation 0.2 to 2, where actions "
    "lie between -1 and 1: what do a return to ask for, more parameters, and a memory add to cloning?",
    reading="The companion of `dt_mem_meta_world`, at equal settings: all of its models on its mixed data, which it "
    "gives to three of them only. Cloning imitates good and bad episodes alike; the others are asked for the return "
    "that a tenth of a task's episodes exceed. RMDT-cache sees the tokens of the segment before besides its memory "
    "tokens (the cache of Transformer-XL, which RATE has too). Runs are short; no setting was tuned for this data.",
    probes=(
        Probe("in the end", ("num_episodes=200",)),
        Probe(
            "memory not read",
            ("num_episodes=200", "memory_use=zeroed_read"),
            ("RMDT", "RMDT-cache", "DT-Mem"),
        ),
    ),
    scales={
        "smoke": Scale(
            takes="two minutes on 2 cores",
            common=DT_MEM_META_WORLD.scales["smoke"].common,
            arms=(Arm("BC", (*models(32)["BC"], MIXED)), Arm("RMDT-cache", (*models(32)["RMDT"], CACHE, MIXED))),
            seeds=(0,),
            probe_episodes=2,
            datasets={"mixed": (*REACH, "noise=[0,0.5]")},
        ),
        "cpu": Scale(
            takes="an hour on 2 cores with jobs=2",
            common=(*on_cpu(2500), NOT_AT_START),
            arms=arms(16, WIDER_ON_CPU),
            seeds=(0, 1, 2),
            probe_episodes=100,
            datasets={"mixed": demonstrations("MT10", 50, 2)["mixed"]},
        ),
    },
)
