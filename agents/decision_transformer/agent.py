"""Acting on a return: what is asked for, what is forgotten at an episode's start, and the state of it all.

The same agent plays every task at once: one forward for all rows (two where the return is inferred), whatever step of
which task's episode each of them is at.

Legend: N environments, K steps of a context, A actions (or dimensions of one), M memory slots, D width, R bins of the
return, B rows of a training batch.
Source: Chen et al. 2021 for returns that are asked for; Lee et al. 2022 for inferred ones. Deviations: docs/dt_mem.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agents.decision_transformer.acting import ActingState, at_newest, nothing_read
from agents.decision_transformer.adaptation import apply_adaptation
from agents.decision_transformer.algorithm import DecisionTransformerAlgorithm, SequencePolicy
from agents.decision_transformer.choosing import NOOP, chosen_action, inferred_return, shuffled_rows
from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.inputs import PromptInputs
from agents.decision_transformer.model import Outputs, SequenceModel
from agents.decision_transformer.part_configs import InferredTargetConfig, NormalizedTargetConfig, RawTargetConfig
from agents.decision_transformer.processes import gathered_rows, own_rows, process_rank, summed
from agents.decision_transformer.prompts import PromptStore
from agents.decision_transformer.returns import ReturnCodec
from agents.decision_transformer.slot_usage import SlotUsage, slots_image
from agents.heads import to_tensor
from agents.interface import Agent, State, child_seed, require_bounded, seeded_initialization

if TYPE_CHECKING:
    from memory.data_summary import DataSummary
    from memory.trajectory_samplers import SegmentBatch

UNKNOWN_TASK = -1


class DecisionTransformerAgent(Agent):
    """Plays what the model makes of its context and of the return asked for.

    Greedily, it takes the mean or the most probable action, and draws nothing. Exploring, it draws discrete actions;
    continuous ones have no distribution and are the same.

    Args:
        config: of the agent.
        algorithm: holds the model.
        data: of the training data: tasks and their returns.

    Attributes:
        target: the return asked for at an episode's start; may be replaced, as sweeps do.
        clips_rewards: whether rewards count as clipped to [-1, 1]: as in the data.
        memory_use: what becomes of the memory at each segment's end; may be replaced.
    """

    kind: ClassVar[Literal["offline"]] = "offline"

    def __init__(
        self,
        config: DecisionTransformerConfig,
        *,
        algorithm: DecisionTransformerAlgorithm,
        data: DataSummary,
        **spaces_rng_device: Any,
    ) -> None:
        super().__init__(algorithm=algorithm, **spaces_rng_device)
        self.config = config
        self.learner = algorithm
        self.data = data
        self.target = config.acting.target
        self.clips_rewards = config.reward_clip or data.reward_clip
        self.memory_use = config.acting.memory_use
        self.codec = ReturnCodec(**config.return_codec.model_dump())
        self._discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        memory = self._initial_memory(1)
        if memory is not None and config.memory.kind == "slots":
            algorithm.slot_usage = SlotUsage(data.tasks, memory.shape[1], self.device)

    @property
    def model(self) -> SequenceModel:
        """From segments to actions."""
        return self.learner.model

    @property
    def policy(self) -> SequencePolicy:
        """What acting needs."""
        return self.learner.policy

    # State of acting

    def target_return(self, task: str | None) -> float:
        """Gives the return asked for at the start of an episode; of an unknown task, over all tasks of the data."""
        target = self.target
        if isinstance(target, InferredTargetConfig):
            return 0.0
        if isinstance(target, RawTargetConfig):
            return target.value * target.multiplier
        if isinstance(target, NormalizedTargetConfig):
            low, high = self._return_quantile(task, 0.0), self._return_quantile(task, 1.0)
            return low + target.value * (high - low)
        return self._return_quantile(task, target.quantile) * target.multiplier

    def _return_quantile(self, task: str | None, quantile: float) -> float:
        if task in self.data.return_quantiles:
            return self.data.return_quantile(task, quantile)
        pooled = np.concatenate([np.asarray(values) for values in self.data.return_quantiles.values()])
        return float(np.quantile(pooled, quantile))

    def initial_state(self, num_envs: int) -> ActingState:
        """Gives N rows at the start of an episode of an unknown task."""
        assert self.observation_space.shape is not None and self.action_space.shape is not None
        lead, device = (num_envs, self.config.context_length), self.device
        pixels = self.observation_space.dtype == np.uint8
        action_dtype = torch.int64 if self._discrete else torch.float32
        memory = self._initial_memory(num_envs)
        return ActingState(
            obs=torch.zeros(
                *lead, *self.observation_space.shape, dtype=torch.uint8 if pixels else torch.float32, device=device
            ),
            previous_action=torch.zeros(*lead, *self.action_space.shape, dtype=action_dtype, device=device),
            previous_reward=torch.zeros(lead, device=device),
            return_to_go=torch.zeros(lead, device=device),
            timestep=torch.zeros(lead, dtype=torch.int64, device=device),
            count=torch.zeros(num_envs, dtype=torch.int64, device=device),
            step=torch.zeros(num_envs, dtype=torch.int64, device=device),
            last_action=torch.zeros(num_envs, *self.action_space.shape, dtype=action_dtype, device=device),
            last_reward=torch.zeros(num_envs, device=device),
            target=torch.full((num_envs,), self.target_return(None), device=device),
            task=torch.full((num_envs,), UNKNOWN_TASK, device=device),
            memory=memory,
        )

    def reset_state(self, state: ActingState, rows: Sequence[int] | np.ndarray) -> ActingState:
        """Gives the state with the listed rows at the start of an episode of an unknown task."""
        return self._restarted(state, rows, [None] * len(rows))

    def begin_episodes(self, state: ActingState, rows: Sequence[int] | np.ndarray, tasks: Sequence[str]) -> ActingState:
        """Starts episodes in the listed rows: initial memory, and the return and prompt of their tasks."""
        return self._restarted(state, rows, tasks)

    def _restarted(
        self, state: ActingState, rows: Sequence[int] | np.ndarray, tasks: Sequence[str | None]
    ) -> ActingState:
        known = {task: place for place, task in enumerate(self.data.tasks)}
        places = [known.get(task, UNKNOWN_TASK) if task is not None else UNKNOWN_TASK for task in tasks]
        targets = [self.target_return(task) for task in tasks]
        return state.restarted(
            torch.as_tensor(np.asarray(rows, np.int64), device=self.device),
            torch.tensor(targets, dtype=torch.float32, device=self.device),
            torch.tensor(places, dtype=torch.int64, device=self.device),
            self._initial_memory(len(rows)),
        )

    def receive_rewards(self, state: ActingState, rows: Sequence[int] | np.ndarray, reward: np.ndarray) -> ActingState:
        """Takes in rewards, clipped where the data were, and asks for so much less from now on.

        A reward that is missing or late is NaN: the row goes on asking for the same return until it comes.
        """
        reward = np.asarray(reward, np.float32)
        return state.rewarded(
            torch.as_tensor(np.asarray(rows, np.int64), device=self.device),
            to_tensor(np.clip(reward, -1.0, 1.0) if self.clips_rewards else reward, self.device),
            decrement=not isinstance(self.target, InferredTargetConfig),
        )

    def replace_actions(self, state: ActingState, rows: Sequence[int] | np.ndarray, action: np.ndarray) -> ActingState:
        """Takes note that other actions were executed: the next step's previous action is what was done."""
        last_action = state.last_action.clone()
        last_action[torch.as_tensor(np.asarray(rows, np.int64), device=self.device)] = torch.as_tensor(
            action, dtype=last_action.dtype, device=self.device
        )
        return state.acted(last_action)

    # Acting

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, state: ActingState | None = None, *, explore: bool = False
    ) -> tuple[np.ndarray, State]:
        """Chooses actions for N observations.

        Args:
            obs: (N, *O).
            state: of the same N rows; None plays first steps.
            explore: whether to draw: the inferred return, and discrete actions.
        """
        state = self.initial_state(len(obs)) if state is None else state
        state = state.appended(to_tensor(np.asarray(obs), self.device))
        rng, target = self.rng if explore else None, self.target
        prompt = None if self.policy.prompts is None else self.policy.prompts.of(state.task)
        if isinstance(target, InferredTargetConfig):
            logits = self._forward(state, prompt)[0].return_logits
            assert logits is not None
            state = state.asking(inferred_return(at_newest(logits, state), self.codec, target, rng))
        outputs, memory = self._forward(state, prompt)
        percentile = target.action_percentile if isinstance(target, InferredTargetConfig) else None
        allowed_NA = None if self.policy.allowed_ZA is None else self.policy.allowed_ZA[state.task]
        state = state.acted(chosen_action(at_newest(outputs.action, state), allowed_NA, percentile, rng))
        if self.config.acting_context == "segment":
            state = state.committed(self._handed_on(memory))
        return state.last_action.cpu().numpy(), state

    def _forward(self, state: ActingState, prompt: PromptInputs | None) -> tuple[Outputs, Tensor | None]:
        if self.memory_use != "zeroed_read":
            return self.model(state.inputs(prompt), state.memory)
        with nothing_read(self.model):
            return self.model(state.inputs(prompt), None if state.memory is None else torch.zeros_like(state.memory))

    def _handed_on(self, memory: Tensor | None) -> Tensor | None:
        """Gives the memory that each row's next segment begins with, should this one be full."""
        if memory is None or self.memory_use in ("carried", "zeroed_read"):
            return memory
        return self._initial_memory(len(memory)) if self.memory_use == "reset" else shuffled_rows(memory, self.rng)

    @torch.no_grad()
    def _initial_memory(self, num_rows: int) -> Tensor | None:
        memory = self.model.initial_memory(num_rows)
        return None if memory is None else memory.clone()

    # What tasks need

    def take_prompts(self, batch: SegmentBatch) -> None:
        """Keeps a demonstration of each task of a batch with prompts, as part of the weights.

        Raises:
            ValueError: if the agent takes no prompts, or the batch has none.
        """
        if self.policy.prompts is None:
            raise ValueError("this agent was built with prompt_steps=0: it takes no prompts")
        self.policy.prompts.take(batch)

    def restrict_actions(self, task: str, actions: Sequence[int]) -> None:
        """Lets a task have these actions only; others become action 0, NOOP. The table is part of the weights.

        Args:
            task: one of the data's.
            actions: indices into the action space, NOOP among them.

        Raises:
            ValueError: if the task is unknown, or the actions do not fit.
        """
        if task not in self.data.tasks:
            raise ValueError(f"task={task!r} is not in the data, which have {', '.join(self.data.tasks)}")
        allowed_ZA = self.policy.allowed_ZA
        if allowed_ZA is None:
            raise ValueError("only discrete actions can be restricted")
        if NOOP not in actions or not set(actions) <= set(range(allowed_ZA.shape[1])):
            raise ValueError(
                f"actions={list(actions)} of {task!r}: must lie in 0..{allowed_ZA.shape[1] - 1} and hold NOOP, {NOOP}"
            )
        row_A = torch.zeros_like(allowed_ZA[0])
        row_A[list(actions)] = True
        allowed_ZA[self.data.tasks.index(task)] = row_A

    # Numbers to show, and state

    def metrics(self) -> dict[str, float]:
        """Gives the learning rate and the last report: losses, accuracy of discrete actions, gradient norm, memory."""
        return {**super().metrics(), "learning_rate": self.learner.learning_rate, **self.learner.last_stats}

    def pictures(self) -> dict[str, np.ndarray]:
        """Gives a picture of which tasks read which slots, in the reporting steps since the last one.

        Where several processes train together, each of them must call it.
        """
        usage = self.learner.slot_usage
        shares_ZM = None if usage is None else usage.taken()
        if usage is None or shares_ZM is None or not shares_ZM.any():
            return {}
        return {"memory/slots_by_task": slots_image(usage.tasks, shares_ZM)}

    def optimizer_state(self) -> dict[str, Any]:
        """Gives optimizer, schedule, the memories carried to the next batch and the use of slots, of all processes.

        Where several processes train together, each of them must call it.
        """
        memory = self.learner.stream_memory
        carried = {} if memory is None else {"stream_memory": gathered_rows(memory)}
        usage = self.learner.slot_usage
        reads = {} if usage is None else {"slot_reads": usage.state()}
        return {**super().optimizer_state(), **carried, **reads}

    def counters(self) -> dict[str, Any]:
        """Gives the base counters, the gradient steps taken, and the running sums of the next report."""
        return {
            **super().counters(),
            "num_updates": self.learner.num_updates,
            "metric_sums": summed(self.learner.sums_P).tolist(),
            "last_stats": dict(self.learner.last_stats),
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave."""
        super().load_training_state(optimizer_state, counters)
        learner = self.learner
        memory = optimizer_state.get("stream_memory")
        learner.stream_memory = None if memory is None else own_rows(memory).clone().to(self.device)
        if learner.slot_usage is not None and "slot_reads" in optimizer_state:
            learner.slot_usage.load(optimizer_state["slot_reads"])
        learner.num_updates = counters["num_updates"]
        sums_P = torch.tensor(counters["metric_sums"])  # of all processes: one of them goes on with it
        learner.sums_P.copy_(sums_P if process_rank() == 0 else torch.zeros_like(sums_P))
        learner.last_stats = dict(counters["last_stats"])


def build_decision_transformer(
    config: DecisionTransformerConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
    data: DataSummary,
    total_gradient_steps: int,
) -> DecisionTransformerAgent:
    """Builds model, algorithm and agent. Arguments and errors: see `DecisionTransformerConfig.build`."""
    if not isinstance(action_space, gymnasium.spaces.Discrete):
        require_bounded(action_space)
    with seeded_initialization(child_seed(seed, 0)):
        model = SequenceModel(config, observation_space, action_space, data)
        if config.adaptation is not None:
            apply_adaptation(model, config.adaptation)
    prompts = None
    if config.prompt_steps:
        prompts = PromptStore(len(data.tasks), config.prompt_steps, observation_space, action_space)
    spaces = {"observation_space": observation_space, "action_space": action_space}
    policy = SequencePolicy(model, prompts, len(data.tasks), **spaces).to(device)
    algorithm = DecisionTransformerAlgorithm(policy=policy, config=config, total_gradient_steps=total_gradient_steps)
    algorithm.eval()  # an update trains, and puts this back
    return DecisionTransformerAgent(
        config,
        algorithm=algorithm,
        data=data,
        rng=np.random.default_rng(child_seed(seed, 1)),
        device=device,
        **spaces,
    )
