"""Config of adaptation: which parameters of a trained model go on learning, and which are added.

Importing this module is cheap: no torch. `agents.decision_transformer.adaptation` does what it says.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agents.base_config import Strict

Method = Literal["lora", "full", "heads", "initial_slots", "adapters", "scratch"]


class AdaptationConfig(Strict):
    """How a trained model is fitted to new data.

    Source: Kang et al. 2024 for LoRA on the memory; the other methods are its controls (docs/dt_mem.md).
    """

    method: Method = Field(
        "lora",
        description="What is trained. lora: low-rank additions to projections that stay as they are (Hu et al. 2022); "
        "full: everything; heads: the output layers; initial_slots: the memory's initial content; adapters: the "
        "bottlenecks after the blocks' MLPs, which agent.adapter adds (Xu et al. 2023, without their hyper-network); "
        "scratch: everything, from new weights.",
    )
    where: Literal["memory", "transformer", "both"] = Field(
        "memory",
        description="Whose projections method=lora adapts: the memory's six, the blocks' linear layers, or both. "
        "Source: Kang et al. 2024 for memory; the others are controls.",
    )
    rank: int = Field(4, ge=1, description="Rank of each addition of method=lora. Source: docs/dt_mem.md.")
    alpha: float = Field(
        1.0, gt=0, description="Additions of method=lora count alpha / rank times. Source: docs/dt_mem.md."
    )
    also_initial_slots: bool = Field(
        False, description="Whether the memory's initial content is trained besides. Of our own."
    )
    also_heads: bool = Field(False, description="Whether the output layers are trained besides. Of our own.")
    base: str | None = Field(
        None, description="Run directory whose model is adapted; sextant adapt sets it. null: new weights."
    )
    base_digest: str | None = Field(
        None, description="sha256 of the weights that were taken from it, in hexadecimal; sextant adapt sets it."
    )

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        fields = type(self).model_fields
        if self.method != "lora":
            for name in ("where", "rank", "alpha"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"{name}={getattr(self, name)} has no effect with method={self.method}")
        for name, part in (("also_initial_slots", "initial_slots"), ("also_heads", "heads")):
            if getattr(self, name) and self.method in ("full", "scratch", part):
                raise ValueError(f"{name}=true has no effect with method={self.method}, which trains them anyway")
        if self.method == "scratch" and self.base_digest is not None:
            raise ValueError(f"base_digest={self.base_digest} contradicts method=scratch, which takes no weights")
        if self.base_digest is not None and self.base is None:
            raise ValueError(f"base_digest={self.base_digest} needs base, the run it belongs to")
        return self
