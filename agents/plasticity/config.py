"""Config of what renews parts of a value network while it learns. Importing this module is cheap: no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "redo": {"period": 1000, "threshold": 0.1, "num_states": 256},
    "last_layer": {"period": 100_000},
}
"""What the fields that may be null stand for, by method. A field that a method lacks has no effect on it."""


class PlasticityConfig(BaseModel):
    """Which parts of the network start anew, and when.

    Source: Sokar et al. 2023 (ReDo); Nikishin et al. 2022 (resets); Dopamine, labs/redo/weight_recyclers.py, unless a
    field says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    method: Literal["redo", "last_layer"] = Field(
        "redo",
        description="redo: dormant units get fresh incoming weights, and outgoing ones of zero; last_layer: the head "
        "gets fresh weights.",
    )
    period: int | None = Field(
        None,
        ge=1,
        description="Gradient steps between two renewals. null: 1000 for redo; 100,000 for last_layer "
        "(Obando-Ceron et al. 2024, figure 12).",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest activity, as a share of the mean of the unit's layer, of a unit that counts as dormant. "
        "null: 0.1 for redo (Obando-Ceron et al. 2024, figure 12).",
    )
    num_states: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Replayed states that activity is measured on. null: 256 for redo (Dopamine, labs/redo/"
        "recycled_dqn_agents.py, batch_size_statistics).",
    )

    @model_validator(mode="after")
    def _resolve_and_refuse_contradictions(self) -> Self:
        for name, default in _METHOD_DEFAULTS[self.method].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)  # frozen from here on
        for name in ("threshold", "num_states"):
            if getattr(self, name) is not None and name not in _METHOD_DEFAULTS[self.method]:
                raise ValueError(f"{name}={getattr(self, name)} has no effect with method={self.method}: leave it out")
        return self

    def check_run(self, total_gradient_steps: int) -> None:
        """Refuses a run that would end before the first renewal.

        Args:
            total_gradient_steps: length of the run.

        Raises:
            ValueError: if `period` is longer.
        """
        assert self.period is not None
        if self.period > total_gradient_steps:
            raise ValueError(
                f"agent.plasticity.period={self.period} renews nothing in a run of {total_gradient_steps} gradient "
                f"steps: expected at most {total_gradient_steps}"
            )
