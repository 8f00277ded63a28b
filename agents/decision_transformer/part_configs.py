"""Configs of the parts of a Decision Transformer: tokenizers, memories, the return codec, and how it acts.

Importing this module is cheap: no torch. `agents.decision_transformer.config` puts the parts together.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agents.base_config import NatureCnnConfig, NetworkConfig, Strict


class AutoTokenizerConfig(Strict):
    """Leaves the choice to the observation space and the layout."""

    kind: Literal["auto"] = Field(
        "auto",
        description="vector for vectors; for images patches under layout=mdt (14 pixels, or 5 where sides are below "
        "28) and one CNN token under layout=dt (Nature CNN, or MinAtar's network where sides are below 28).",
    )


class VectorTokenizerConfig(Strict):
    """One token: a linear map of the vector."""

    kind: Literal["vector"] = Field("vector", description="Discriminator of the tokenizer union.")
    normalize: bool = Field(
        True,
        description="Whether vectors are shifted and scaled by the mean and deviation of the data, over all tasks "
        "together. Source: Chen et al. 2021, gym/experiment.py, which does so for its one task.",
    )


class PatchFields(Strict):
    """What patch tokenizers of any image size share."""

    pool: int | None = Field(
        None,
        ge=1,
        le=4,
        description="Tokens left after averaging neighbouring patches (4: a 2x2 grid; 1 to 3: columns). null keeps "
        "one token a patch. Of our own, for runs without an accelerator.",
    )


class AtariPatchTokenizerConfig(PatchFields):
    """A token for each patch of a frame: 6 x 6 = 36 of 84 x 84 pixels."""

    kind: Literal["atari_patch"] = Field("atari_patch", description="Discriminator of the tokenizer union.")
    patch_size: int = Field(
        14,
        ge=2,
        le=84,
        description="Side of a patch (pixels); divides the image. Source: google-research/multi_game_dt.",
    )


class MinatarPatchTokenizerConfig(PatchFields):
    """A token for each patch of a 10 x 10 grid: 25 or 4 of them."""

    kind: Literal["minatar_patch"] = Field("minatar_patch", description="Discriminator of the tokenizer union.")
    patch_size: Literal[2, 5] = Field(5, description="Side of a patch (grid cells). Of our own.")


class CnnTokenizerConfig(Strict):
    """One token: a linear map of the features of a convolutional network."""

    kind: Literal["cnn"] = Field("cnn", description="Discriminator of the tokenizer union.")
    network: NetworkConfig = Field(NatureCnnConfig(), description="Network from images to features.")


TokenizerConfig = Annotated[
    AutoTokenizerConfig
    | VectorTokenizerConfig
    | AtariPatchTokenizerConfig
    | MinatarPatchTokenizerConfig
    | CnnTokenizerConfig,
    Field(discriminator="kind"),
]


class NoMemoryConfig(Strict):
    """The plain Decision Transformer: nothing outlives the context."""

    kind: Literal["none"] = Field("none", description="Discriminator of the memory union.")


class SlotMemoryConfig(Strict):
    """DT-Mem: a matrix of slots written and read by content. Source: Kang et al. 2024; docs/dt_mem.md."""

    kind: Literal["slots"] = Field("slots", description="Discriminator of the memory union.")
    num_slots: int = Field(64, ge=2, description="Slots, each as wide as the backbone. Of our own, for small models.")
    num_heads: int = Field(1, ge=1, description="Heads of the address; divides the width. Of our own.")
    write: Literal["paper", "convex"] = Field(
        "paper",
        description="paper: erase w(1-beta), add w beta v, as Kang et al. 2024 state it; convex: keep 1 - w beta, add "
        "w beta v, after which slots stay in the hull of old slots and values (Graves et al. 2014).",
    )
    beta: Literal["sigmoid", "softmax"] = Field(
        "sigmoid",
        description="Write strength of each slot and token. softmax is the paper's word, under which adds are tiny.",
    )
    address_axis: Literal["slots", "tokens"] = Field(
        "slots", description="Axis along which the address sums to one; the paper is silent (docs/dt_mem.md)."
    )
    initial_std: float | None = Field(
        None,
        gt=0,
        description="Deviation of the initial slots' entries (no unit). null: 1, that of tokens behind a LayerNorm. "
        "Well below 1/sqrt(width) all addresses are alike. Of our own.",
    )
    chunk: int = Field(
        5,
        ge=0,
        description="Steps that read the memory as it was before them and are then written together; 0 writes every "
        "step before it is read, which is closest to the paper.",
    )
    placement: Literal["post", "per_block"] = Field(
        "post",
        description="post: one memory between the last norm and the heads, as the paper draws it; per_block: one in "
        "each block, between attention and MLP, the place of the authors' release.",
    )
    write_tokens: int | None = Field(
        None,
        ge=1,
        le=4,
        description="Tokens that the observation tokens of a step are averaged to before they are written. null "
        "writes each: with 36 patches 36 x num_slots addresses a step. Of our own.",
    )


class TokenMemoryConfig(Strict):
    """RMDT: memory tokens around the segment. Source: Bessonov et al. 2023; zen0no/RATE."""

    kind: Literal["tokens"] = Field("tokens", description="Discriminator of the memory union.")
    num_tokens: int = Field(
        5,
        ge=1,
        description="Memory tokens before the segment, and as many after it. Source: zen0no/RATE, T-Maze config.",
    )
    initial_std: float = Field(
        1.0,
        gt=0,
        description="Deviation of the initial tokens' entries (no unit): that of the normalised outputs which replace "
        "them. Of our own.",
    )
    cached_tokens: int = Field(
        0,
        ge=0,
        description="Newest tokens of the steps before the segment that its tokens see too, in every block and without "
        "gradient (Dai et al. 2019, Transformer-XL). 0 sees none, as zen0no/RATE does in its mode RATEM "
        "(docs/dt_mem.md).",
    )


MemoryConfig = Annotated[NoMemoryConfig | SlotMemoryConfig | TokenMemoryConfig, Field(discriminator="kind")]


class ReturnHeadConfig(Strict):
    """Bins of the return: ids of return tokens under layout=mdt, and classes of the return prediction."""

    low: float = Field(-20.0, description="Return of the first bin. Source: google-research/multi_game_dt.")
    high: float = Field(100.0, description="Return of the last bin. Source: google-research/multi_game_dt.")
    bins: int = Field(
        121,
        ge=2,
        description="Bins, both ends included: one for each whole return (DT-Mem's release). The notebook of "
        "google-research/multi_game_dt builds 120 and lets JAX clamp the last index.",
    )

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must lie below high={self.high}")
        return self


class QuantileTargetConfig(Strict):
    """Asks for a return that the data of the task holds."""

    kind: Literal["quantile"] = Field("quantile", description="Discriminator of the target union.")
    quantile: float = Field(
        0.9, ge=0, le=1, description="Quantile of the returns of the task's episodes (fraction). Of our own."
    )
    multiplier: float = Field(1.0, description="Factor of that return, for sweeps (no unit).")


class RawTargetConfig(Strict):
    """Asks for the same return in every task."""

    kind: Literal["raw"] = Field("raw", description="Discriminator of the target union.")
    value: float = Field(description="Undiscounted return at the start of an episode (units of return).")
    multiplier: float = Field(1.0, description="Factor of that return, for sweeps (no unit).")


class NormalizedTargetConfig(Strict):
    """Asks for a return on the scale of the task's data."""

    kind: Literal["normalized"] = Field("normalized", description="Discriminator of the target union.")
    value: float = Field(
        1.0,
        description="0 is the lowest return of the task's episodes, 1 the highest; beyond them (no unit). Of our own.",
    )


class InferredTargetConfig(Strict):
    """Predicts the return at every step, tilts it upward and asks for what was drawn. Source: multi_game_dt."""

    kind: Literal["inferred"] = Field("inferred", description="Discriminator of the target union.")
    method: Literal["samples", "tilt"] = Field(
        "samples",
        description="samples: the highest of num_samples draws (google-research/multi_game_dt, the notebook); tilt: "
        "one draw from log p + kappa * (R - low) / (high - low), the exact form.",
    )
    num_samples: int = Field(
        128, ge=1, description="Draws of method=samples, for each environment. Source: google-research/multi_game_dt."
    )
    return_temperature: float = Field(
        0.75,
        gt=0,
        description="Factor of the return logits of method=samples; below 1 it flattens. Source: "
        "google-research/multi_game_dt.",
    )
    kappa: float = Field(10.0, ge=0, description="Strength of the tilt of method=tilt (nats). Of our own.")
    action_percentile: float | None = Field(
        50.0,
        ge=0,
        lt=100,
        description="Discrete actions are drawn among those with logits above this percentile (percent). null: among "
        "all of them. Source: google-research/multi_game_dt.",
    )


TargetConfig = Annotated[
    QuantileTargetConfig | RawTargetConfig | NormalizedTargetConfig | InferredTargetConfig, Field(discriminator="kind")
]


class ActingConfig(Strict):
    """What the agent sees of its past, and which return it asks for."""

    context: Literal["auto", "sliding", "segment"] = Field(
        "auto",
        description="sliding: the last context_length steps, computed anew each step; segment: the steps since the "
        "last multiple of context_length, the memory being written at its end; auto: as in training.",
    )
    target: TargetConfig = Field(QuantileTargetConfig(), description="Return asked for.")
    restrict_actions: bool = Field(
        True,
        description="Whether actions that a game lacks become NOOP in play, where the env has all actions of its suite "
        "(full_action_space) and tells which ones the game uses. Source: google-research/multi_game_dt.",
    )
    memory_use: Literal["carried", "reset", "zeroed_read", "shuffled"] = Field(
        "carried",
        description="What is made of the memory when acting. carried: as in training; the others are ablations: reset "
        "gives every segment the initial memory, zeroed_read adds nothing of what is read, shuffled hands each "
        "environment the memory of another at a segment's end (docs/dt_mem.md).",
    )
