"""Config of sparse training. The defaults are those of gradual magnitude pruning in Obando-Ceron et al. 2024.

Importing this module is cheap: no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np

    from agents.interface import Agent
    from agents.pruning.pruner import Pruner

_METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "magnitude": {"start": 0.2, "end": 0.8, "update_period": 1000},
    "rigl": {"start": 0.0, "end": 0.8, "update_period": 5000, "drop_fraction": 0.3},
    "set": {"start": 0.0, "end": 0.8, "update_period": 5000, "drop_fraction": 0.3},
    "static": {},
}
"""What the fields that may be null stand for, by method. A field that a method lacks has no effect on it."""


class PruningConfig(BaseModel):
    """Which weights become zero, how many, and when. Shares of the run are shares of its gradient steps.

    Source: Obando-Ceron et al. 2024, section 3; JaxPruner, baselines/dopamine, unless a field says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    method: Literal["magnitude", "rigl", "set", "static"] = Field(
        "magnitude",
        description="magnitude: a dense network loses its smallest weights gradually; rigl: sparse from the start, "
        "regrown where gradients are largest (Evci et al. 2020); set: regrown at random (Mocanu et al. 2018); static: "
        "a random mask that never changes.",
    )
    sparsity: float = Field(
        0.95, ge=0, lt=1, description="Final share of zeros among the weights that are pruned. Biases do not count."
    )
    distribution: Literal["erk", "uniform"] = Field(
        "erk",
        description="How sparsity is spread over the layers of each optimizer. erk: wide layers are sparser, small "
        "ones may stay dense; uniform: all alike. The paper is silent; its code says erk (JaxPruner, dqn.gin).",
    )
    start: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the run after which masks change. null: 0.2 for magnitude; 0 for rigl and set.",
    )
    end: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the run after which masks stay. null: 0.8; for rigl and set as in Graesser et al. 2022, "
        "rigl/rl, dqn_atari_rigl_impala_net.gin.",
    )
    update_period: int | None = Field(
        None,
        ge=1,
        description="Gradient steps between two mask updates. null: 1000 for magnitude; 5000 for rigl and set "
        "(JaxPruner, dqn.gin). Shortened in a run so short that it would have fewer than 100 of them.",
    )
    drop_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the kept weights that the first update of rigl or set replaces, falling as a half cosine "
        "to 0 at `end`. null: 0.3 (Evci et al. 2020; JaxPruner, dqn.gin).",
    )
    include: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="Patterns (*, ?, [abc]) of the layers to prune, named as in the metrics agent/sparsity/NAME. Only "
        "parameters of two or more dimensions are ever pruned.",
    )
    exclude: tuple[str, ...] = Field(
        (), description="Patterns of the layers to leave dense, taken out of those that `include` matches."
    )

    @model_validator(mode="after")
    def _resolve_and_refuse_contradictions(self) -> PruningConfig:
        for name, default in _METHOD_DEFAULTS[self.method].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)  # frozen from here on
        for name in ("start", "end", "update_period", "drop_fraction"):
            value = getattr(self, name)
            if value is not None and name not in _METHOD_DEFAULTS[self.method]:
                able = [method for method, fields in _METHOD_DEFAULTS.items() if name in fields]
                raise ValueError(
                    f"{name}={value} has no effect with method={self.method}: leave it out, or choose "
                    f"method={'|'.join(able)}"
                )
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start={self.start} must lie below end={self.end}")
        return self

    def attach(self, agent: Agent, *, total_gradient_steps: int, seed: np.random.SeedSequence) -> Pruner:
        """Makes an agent train sparsely from its next gradient step on.

        Args:
            agent: learns with torch optimizers; its state, from now on, includes the masks.
            total_gradient_steps: length of the run, for which the schedule is laid out.
            seed: of the random masks and random growth.

        Returns:
            the pruner, also at `agent.pruner`.

        Raises:
            ValueError: if nothing can be pruned, a pattern matches no layer, the run has no gradient step, or the agent
                is pruned already.
        """
        from agents.pruning.pruner import attach

        return attach(self, agent, total_gradient_steps=total_gradient_steps, seed=seed)
