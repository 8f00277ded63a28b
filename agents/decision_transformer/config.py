"""Config of the Decision Transformer family: DT, behaviour cloning, Multi-Game DT, RMDT, Prompt-DT and DT-Mem.

Importing this module is cheap: no torch. The defaults are those of Chen et al. 2021 for continuous control.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agents.base_config import PrunableFields
from agents.decision_transformer.adaptation_config import AdaptationConfig
from agents.decision_transformer.part_configs import (
    ActingConfig,
    AutoTokenizerConfig,
    InferredTargetConfig,
    MemoryConfig,
    NoMemoryConfig,
    ReturnHeadConfig,
    SlotMemoryConfig,
    TokenizerConfig,
    TokenMemoryConfig,
)

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from agents.decision_transformer.agent import DecisionTransformerAgent
    from memory.data_summary import DataSummary


class SequenceFields(PrunableFields):
    """The model: tokens, backbone, heads and memory.

    Source: Chen et al. 2021, gym/decision_transformer, unless a field says otherwise.
    """

    context_length: int = Field(20, ge=1, le=4096, description="Env steps of a segment, K.")
    width: int = Field(128, ge=2, description="Numbers per token, D; a multiple of num_heads.")
    num_layers: int = Field(3, ge=1, description="Transformer blocks.")
    num_heads: int = Field(1, ge=1, description="Attention heads of each block.")
    activation: Literal["relu", "gelu"] = Field(
        "relu", description="Non-linearity of the blocks' MLPs; gelu in google-research/multi_game_dt."
    )
    initialization: Literal["gpt2", "fan_in"] = Field(
        "gpt2",
        description="Deviation of linear layers at the start: gpt2: 0.02 (Chen et al. 2021, who take GPT-2's code); "
        "fan_in: 1 / sqrt(inputs), for models much narrower than GPT-2. Of our own.",
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Probability that a number is dropped (embeddings, attention, block outputs)."
    )
    tokenizer: TokenizerConfig = Field(AutoTokenizerConfig(), description="From an observation to its tokens.")
    layout: Literal["dt", "mdt"] = Field(
        "dt",
        description="Order of a step's tokens. dt: previous action, previous reward, return, observation; the action "
        "is read at the last. mdt: previous action, previous reward, observation, return "
        "(google-research/multi_game_dt); the return is read at the last observation token, the action at the return "
        "token.",
    )
    position: Literal["timestep", "window"] = Field(
        "timestep",
        description="timestep: a learned vector for each step of an episode, shared by the step's tokens; window: one "
        "for each token of the segment (google-research/multi_game_dt).",
    )
    max_timestep: int = Field(
        1000,
        ge=1,
        description="Env steps with a vector of their own under position=timestep; later ones share the last.",
    )
    condition_on_return: bool = Field(
        True, description="Whether there are return tokens. false is behaviour cloning on the same history."
    )
    return_scale: float = Field(
        1000.0, gt=0, description="Return that becomes 1 in a return token of layout=dt (units of return)."
    )
    single_return_token: bool = Field(
        False,
        description="Whether only the first return token of each segment is kept; later ones are zero and unseen by "
        "others. Source: google-research/multi_game_dt.",
    )
    use_reward_tokens: bool = Field(
        False,
        description="Whether the previous reward is a token: linear under layout=dt, none, positive or negative under "
        "layout=mdt (google-research/multi_game_dt).",
    )
    reward_scale: float = Field(
        1.0, gt=0, description="Reward that becomes 1 in a reward token of layout=dt (units of reward). Of our own."
    )
    return_prediction: ReturnHeadConfig | None = Field(
        None, description="Bins in which the return is predicted before it is seen; needs layout=mdt. null: not at all."
    )
    reward_prediction: bool = Field(
        False,
        description="Whether the sign of the previous reward is predicted at the previous action's token. Source: "
        "google-research/multi_game_dt.",
    )
    memory: MemoryConfig = Field(NoMemoryConfig(), description="What outlives a segment.")
    prompt_steps: int = Field(
        0,
        ge=0,
        le=1000,
        description="Steps of a demonstration put before each segment (5 in Xu et al. 2022, Prompt-DT); 0: none.",
    )
    adapter: int | None = Field(
        None,
        ge=1,
        description="Width of a bottleneck after the MLP of each block (16 in docs/dt_mem.md). null: none. Source: Xu "
        "et al. 2023, Hyper-DT, the adapters without their hyper-network.",
    )

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        for reason in _contradictions(self):
            raise ValueError(reason)
        return self

    @property
    def return_codec(self) -> ReturnHeadConfig:
        """Bins of return tokens under layout=mdt: those of the prediction, or -20 to 100."""
        return self.return_prediction or ReturnHeadConfig()


class DecisionTransformerConfig(SequenceFields):
    """A sequence model that is asked for a return and gives actions.

    Source: Chen et al. 2021, gym/experiment.py, unless a field says otherwise.
    """

    kind: ClassVar[Literal["offline"]] = "offline"

    name: Literal["decision_transformer"] = Field(
        "decision_transformer", description="Discriminator of the agent union."
    )
    adaptation: AdaptationConfig | None = Field(
        None, description="Which parameters are trained (docs/dt_mem.md). null: all."
    )
    batch_size: int = Field(64, ge=1, description="Rows, each of num_segments segments, per gradient step.")
    num_segments: int = Field(
        1,
        ge=1,
        le=64,
        description="Consecutive segments of an episode through which one gradient step is taken back (segments). More "
        "than 1 means sampling=stream. 2 to 4 train a memory to be written for later use (docs/dt_mem.md).",
    )
    sampling: Literal["auto", "windows", "stream"] = Field(
        "auto",
        description="windows: steps from anywhere, the memory starting anew; stream: each row goes on with its episode "
        "and memory; auto: stream with a memory or with several segments, windows otherwise.",
    )
    random_offset: bool = Field(
        False,
        description="Whether a stream's row may enter its episode at any multiple of context_length, not only at its "
        "start, so that the initial memory meets later steps too. Of our own.",
    )
    balance: Literal["steps", "tasks", "episodes"] = Field(
        "steps",
        description="What is drawn uniformly: steps (episodes in proportion to their length, Chen et al. 2021), tasks "
        "and then their steps, or episodes.",
    )
    reward_clip: bool = Field(
        False,
        description="Whether rewards are clipped to [-1, 1], in the data before returns are summed and when acting. "
        "Source: google-research/multi_game_dt, whose data are clipped.",
    )
    return_weight: float = Field(
        1.0, ge=0, description="Factor of the return prediction's cross-entropy in the loss (nats; 1 for the action's)."
    )
    reward_weight: float = Field(
        1.0, ge=0, description="Factor of the reward prediction's cross-entropy in the loss (nats; 1 for the action's)."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="AdamW's step size after the warm-up.")
    weight_decay: float = Field(
        1e-4, ge=0, le=1, description="AdamW's decay of matrices; norms, biases and tables are left out."
    )
    warmup_steps: int = Field(10_000, ge=0, description="Gradient steps of the linear warm-up of the learning rate.")
    decay: Literal["none", "cosine", "linear"] = Field(
        "none", description="How the learning rate falls from the warm-up's end to 0 at the run's end."
    )
    max_grad_norm: float = Field(
        0.25, gt=0, description="L2 norm to which the gradient of the trainable parameters is clipped."
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Number format of the backbone; parameters, memory addresses, heads' outputs and loss stay "
        "in float32.",
    )
    metrics_period: int = Field(
        50, ge=1, description="Gradient steps between two reports of losses, accuracy and memory usage. Of our own."
    )
    acting: ActingConfig = Field(ActingConfig(), description="Context and return asked for when acting.")

    @model_validator(mode="after")
    def _training_and_acting_agree(self) -> Self:
        if self.sampling == "windows" and self.num_segments > 1:
            raise ValueError(f"num_segments={self.num_segments} needs sampling=stream: windows are single segments")
        if self.pruning is not None and self.adaptation is not None and self.adaptation.method == "lora":
            raise ValueError("pruning would prune low-rank additions too: adapt with pruning=null")
        if self.prompt_steps and self.streams:
            raise ValueError(f"prompt_steps={self.prompt_steps} needs sampling=windows and no memory")
        if self.random_offset and not self.streams:
            raise ValueError("random_offset=true has no effect with sampling=windows")
        if self.acting.context == "sliding" and self.memory.kind != "none":
            raise ValueError(f"acting.context=sliding cannot write memory.kind={self.memory.kind}: choose segment")
        if self.acting.memory_use != "carried" and self.memory.kind == "none":
            raise ValueError(f"acting.memory_use={self.acting.memory_use} has no effect with memory.kind=none")
        if isinstance(self.acting.target, InferredTargetConfig) and self.return_prediction is None:
            raise ValueError("acting.target.kind=inferred needs return_prediction")
        if isinstance(self.acting.target, InferredTargetConfig) and self.single_return_token:
            raise ValueError("single_return_token=true hides the return that acting.target.kind=inferred asks for")
        return self

    @property
    def streams(self) -> bool:
        """Whether training rows go on with their episode, memory carried, instead of being windows from anywhere."""
        if self.sampling != "auto":
            return self.sampling == "stream"
        return self.num_segments > 1 or self.memory.kind != "none"

    @property
    def acting_context(self) -> Literal["sliding", "segment"]:
        """The context when acting, `auto` being resolved: segments if training streams."""
        if self.acting.context != "auto":
            return self.acting.context
        return "segment" if self.streams or self.memory.kind != "none" else "sliding"

    @property
    def label(self) -> str:
        """Short name for directories and tables; an adapted model's says how it was adapted."""
        adaptation = self.adaptation
        if adaptation is None:
            return self._plain_label
        how = f"lora_{adaptation.where}" if adaptation.method == "lora" else adaptation.method
        return f"{self._plain_label}-{how}"

    @property
    def _plain_label(self) -> str:
        if self.memory.kind != "none":
            return "dt_mem" if self.memory.kind == "slots" else "rmdt"
        if self.prompt_steps:
            return "prompt_dt"
        if not self.condition_on_return:
            return "behaviour_cloning"
        return "multi_game_dt" if self.return_prediction is not None else "decision_transformer"

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        device: str,
        seed: np.random.SeedSequence,
        data: DataSummary,
        total_gradient_steps: int,
    ) -> DecisionTransformerAgent:
        """Builds the agent.

        Args:
            observation_space: of one environment.
            action_space: of one environment.
            device: where the networks live.
            seed: of weights and acting.
            data: what the training data are like: scales, tasks, returns.
            total_gradient_steps: length of the run, for which the learning rate's schedule is laid out.

        Raises:
            ValueError: if the spaces do not fit the tokenizer, or the action space is neither Discrete nor a bounded
                Box.
        """
        from agents.decision_transformer.agent import build_decision_transformer

        return build_decision_transformer(
            self,
            observation_space,
            action_space,
            device=device,
            seed=seed,
            data=data,
            total_gradient_steps=total_gradient_steps,
        )


def _contradictions(config: SequenceFields) -> list[str]:
    """Gives one sentence for each pair of model settings that cannot both hold."""
    memory, found = config.memory, []
    if config.width % config.num_heads:
        found.append(f"width={config.width} is not a multiple of num_heads={config.num_heads}")
    if isinstance(memory, SlotMemoryConfig):
        found += _slot_contradictions(config, memory)
    if isinstance(memory, TokenMemoryConfig) and memory.cached_tokens and config.position != "timestep":
        found.append(
            f"memory.cached_tokens={memory.cached_tokens} needs position=timestep: under position={config.position} "
            "tokens of the segment before would be taken for later ones of this segment"
        )
    if not config.condition_on_return:
        for name in ("single_return_token", "return_prediction"):
            if getattr(config, name):
                found.append(f"{name} has no effect with condition_on_return=false")
    if config.return_prediction is not None and config.layout != "mdt":
        found.append(f"return_prediction needs layout=mdt: under layout={config.layout} the return is seen before it")
    return found


def _slot_contradictions(config: SequenceFields, memory: SlotMemoryConfig) -> list[str]:
    """Gives one sentence for each setting of a slot memory that the model's contradict."""
    found = []
    if config.width % memory.num_heads:
        found.append(f"width={config.width} is not a multiple of memory.num_heads={memory.num_heads}")
    if memory.chunk > config.context_length:
        found.append(f"memory.chunk={memory.chunk} exceeds context_length={config.context_length}")
    predicts = config.return_prediction is not None or (config.reward_prediction and config.use_reward_tokens)
    if memory.chunk == 0 and predicts:
        found.append("memory.chunk=0 writes a step's return and reward before they are predicted: choose at least 1")
    return found
