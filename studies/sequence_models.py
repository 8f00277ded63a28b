"""The sequence models that studies hold beside each other at equal windows in an update, and ways of adapting them."""

from collections.abc import Mapping

from studies.study import Arm

NEW_PARTS_RATE = "learning_rate=3e-3"
"""Of what starts at zero or is small: low-rank additions, heads, slots. Ten times the base's, as is usual for them."""

LARGE = ("device=cuda", "agent.precision=bf16", "agent.width=512", "agent.num_layers=4", "agent.num_heads=8")
"""The models on a GPU."""

WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DT-full": ("DT", ("method=full",)),
    "DT-scratch": ("DT", ("method=scratch",)),
    "DT-LoRA": ("DT", ("method=lora", "where=transformer", NEW_PARTS_RATE)),
    "DT-Mem-full": ("DT-Mem", ("method=full",)),
    "DT-Mem-heads": ("DT-Mem", ("method=heads", NEW_PARTS_RATE)),
    "DT-Mem-slots": ("DT-Mem", ("method=initial_slots", NEW_PARTS_RATE)),
    "DT-Mem-LoRA-memory": ("DT-Mem", ("method=lora", "where=memory", NEW_PARTS_RATE)),
    "DT-Mem-LoRA-transformer": ("DT-Mem", ("method=lora", "where=transformer", NEW_PARTS_RATE)),
    "DT-Mem-LoRA-both": ("DT-Mem", ("method=lora", "where=both", NEW_PARTS_RATE)),
}
"""Ways of adapting, by name: the model that is adapted, and keys of ``sextant adapt``."""


def models(windows: int) -> dict[str, tuple[str, ...]]:
    """Gives the models by name, as overrides.

    Args:
        windows: of one context each, in an update; even. Those with a memory see them as pairs of consecutive ones.
    """
    pairs = (f"agent.batch_size={windows // 2}", "agent.num_segments=2")
    return {
        "BC": ("agent=behaviour_cloning", f"agent.batch_size={windows}"),
        "DT": ("agent=decision_transformer", f"agent.batch_size={windows}"),
        "RMDT": ("agent=rmdt", *pairs),
        "DT-Mem": ("agent=dt_mem", *pairs),
    }


def model_arms(windows: int, *names: str) -> tuple[Arm, ...]:
    """Gives some of these models as arms."""
    return tuple(Arm(name, models(windows)[name]) for name in names)


def adapted_arms(
    ways: Mapping[str, tuple[str, tuple[str, ...]]], *keys: str, suffix: str = "", base_suffix: str = ""
) -> tuple[Arm, ...]:
    """Gives arms that adapt the models of an earlier stage.

    Args:
        ways: some of `WAYS`.
        keys: of ``sextant adapt``, shared by all.
        suffix: of the arms' names.
        base_suffix: of the names of the arms that are adapted.
    """
    return tuple(Arm(f"{name}{suffix}", (*own, *keys), f"{model}{base_suffix}") for name, (model, own) in ways.items())


def chosen_ways(*names: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Gives some of `WAYS`."""
    return {name: WAYS[name] for name in names}


def arms_by_demonstrations(
    ways: Mapping[str, tuple[str, tuple[str, ...]]], demonstrations: tuple[int, ...], *keys: str
) -> tuple[Arm, ...]:
    """Gives arms that adapt to the held-out tasks, for every number of demonstrations of a task.

    Args:
        ways: some of `WAYS`.
        demonstrations: of each task.
        keys: of ``sextant adapt``, shared by all.
    """
    return tuple(
        arm
        for k in demonstrations
        for arm in adapted_arms(ways, "data=[{data}/test]", f"episodes_per_task={k}", *keys, suffix=f"-k{k}")
    )


def adaptation_length(steps: int, every: int, episodes: int) -> tuple[str, ...]:
    """Gives the keys of how long to adapt.

    Args:
        steps: gradient steps.
        every: so many an evaluation, from before the first one on.
        episodes: of each evaluation, over all tasks.
    """
    return (
        f"total_gradient_steps={steps}",
        f"evaluate_every_gradient_steps={every}",
        f"evaluation_episodes={episodes}",
    )


NOT_AT_START = "trainer.evaluate_at_start=false"
"""Where the models that are adapted have been evaluated already."""
