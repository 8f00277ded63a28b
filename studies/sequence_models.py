"""The sequence models that studies hold beside each other, all at the same number of windows in an update."""

from studies.study import Arm

NEW_PARTS_RATE = "learning_rate=3e-3"
"""Of what starts at zero or is small: low-rank additions, heads, slots. Ten times the base's, as is usual for them."""


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
