"""Ways to act other than a sequence model's config says: another return asked for, another use of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.refusal import ConfigError

if TYPE_CHECKING:
    from agents.interface import Agent
    from sextant.evaluate_table import Result


@dataclass(frozen=True)
class Variant:
    """One way to act.

    Attributes:
        memory_use: see ``agent.acting.memory_use``; None leaves it.
        target_return: asked for at the start of every episode; None leaves it (units of return).
    """

    memory_use: str | None = None
    target_return: float | None = None

    @property
    def suffix(self) -> str:
        """What is put behind a policy's name: lower-case letters, digits and underscores."""
        asked = f"{self.target_return:g}" if self.target_return is not None else ""
        plain = asked.replace("-", "m").replace("+", "").replace(".", "p")
        return (f"_{self.memory_use}" if self.memory_use else "") + (f"_target_{plain}" if asked else "")

    def apply(self, agent: Agent) -> None:
        """Makes the agent act this way.

        Raises:
            ConfigError: if it is no sequence model, has no memory, or is asked for no return.
        """
        if self == Variant():
            return
        from agents.decision_transformer.agent import DecisionTransformerAgent
        from agents.decision_transformer.part_configs import RawTargetConfig

        name = "memory_use" if self.memory_use else "target_returns"
        if not isinstance(agent, DecisionTransformerAgent):
            raise ConfigError(f"{name} is for Decision Transformers; this run's agent is a {type(agent).__name__}")
        if self.memory_use is not None:
            if agent.model.memory is None:
                raise ConfigError(f"memory_use={self.memory_use}: this run's agent has no memory")
            untyped: Any = agent
            untyped.memory_use = self.memory_use
        if self.target_return is not None:
            if not agent.config.condition_on_return:
                raise ConfigError(
                    "target_returns: this run's agent is not asked for returns (condition_on_return=false)"
                )
            agent.target = RawTargetConfig(value=self.target_return)


def variants(memory_use: str | None, target_returns: Sequence[float] | None) -> Iterator[Variant]:
    """Gives the ways to act that were asked for, one per return."""
    for target_return in target_returns or (None,):
        yield Variant(memory_use, target_return)


def write_target_sweep(results: Sequence[tuple[Variant, Result]], protocol_id: str) -> list[Path]:
    """Writes the returns asked for beside those achieved: ``target_sweep.csv`` and ``.png`` beside the evaluations.

    Args:
        results: of one checkpoint, with the ways it acted.
        protocol_id: for the plot's title.

    Returns:
        the files; none where fewer than two returns were asked for.
    """
    from analysis.figures import save_png, target_sweep_figure
    from trainers.run_log import write_atomically

    points = [(variant.target_return, result) for variant, result in results if variant.target_return is not None]
    if len(points) < 2:
        return []
    rows = []
    for asked, result in points:
        low, high = result.summary["return_interval"] or (float("nan"), float("nan"))
        rows.append((float(asked), float(result.summary["return_mean"]), float(low), float(high)))
    first = points[0][1]
    stem = f"target_sweep-{first.policy.split('_')[0]}-{first.env_steps:09d}"
    csv, png = (first.directory.parent / f"{stem}.{ending}" for ending in ("csv", "png"))
    lines = ["target_return,return_mean,interval_low,interval_high"]
    lines += [",".join(f"{value:g}" for value in row) for row in rows]
    write_atomically(csv, "\n".join(lines) + "\n")
    save_png(target_sweep_figure(rows, title=protocol_id), png)
    return [csv, png]
