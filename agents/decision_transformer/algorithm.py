"""The update of sequence models as a Tianshou algorithm: segments in order, one gradient step through all of them.

Each row's memory goes from segment to segment, with gradient, and on to the row's next batch, without: truncated
backpropagation through `num_segments` segments. Where an episode starts, the row gets the initial memory, which is
learned. Losses are means over valid steps, of all processes where several train together.

Source: Chen et al. 2021; Lee et al. 2022 for the predictions of return and reward; Bulatov et al. 2022 for the
backpropagation through a memory. Differs from zen0no/RATE, which detaches the memory after every segment.

Legend: B rows, S segments, K steps of a segment, A actions (or dimensions of one), M memory slots, D width, P parts of
the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tianshou.algorithm.algorithm_base import OfflineAlgorithm, Policy, TrainingStats
from torch import Tensor, nn

from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.inputs import SegmentInputs, segment_inputs
from agents.decision_transformer.model import Outputs, SequenceModel
from agents.decision_transformer.optimization import SequenceOptimizerFactory
from agents.decision_transformer.processes import num_processes, sum_gradients, summed
from agents.decision_transformer.prompts import PromptStore
from agents.decision_transformer.returns import ReturnCodec
from agents.decision_transformer.slot_usage import SlotUsage
from agents.decision_transformer.tokenizers import reward_ids
from agents.heads import to_tensor
from agents.losses import masked_sum, sequence_cross_entropy, sequence_squared_error

if TYPE_CHECKING:
    from memory.trajectory_samplers import SegmentBatch


@dataclass(kw_only=True)
class SequenceTrainingStats(TrainingStats):
    """What one update reports. All None except on every `metrics_period`-th gradient step.

    Attributes:
        loss: weighted sum of the parts, mean over the gradient steps since the last report.
        action_loss: squared error, or cross-entropy (nats), over the same steps.
        grad_norm: L2 norm of the gradient of the reporting step alone, before clipping.
    """

    loss: float | None = None
    action_loss: float | None = None
    grad_norm: float | None = None


class SequencePolicy(Policy):
    """What acting needs: the model, prompts, and the actions each task allows.

    Args:
        model: from segments to actions.
        prompts: a demonstration of each task, or None for a model that takes none.
        num_tasks: tasks of the data.
        spaces: Tianshou's action_space and observation_space.
    """

    def __init__(self, model: SequenceModel, prompts: PromptStore | None, num_tasks: int, **spaces: Any) -> None:
        super().__init__(**spaces, action_bound_method=None)
        self.model = model
        self.prompts = prompts
        self.allowed_ZA: Tensor | None
        every = torch.ones(num_tasks + 1, model.heads.action.out_features, dtype=torch.bool)  # the last: unknown tasks
        self.register_buffer("allowed_ZA", every if model.heads.discrete else None)

    def forward(
        self, batch: SegmentInputs, state: Tensor | None = None, **kwargs: Any
    ) -> tuple[Outputs, Tensor | None]:
        """Gives what the model makes of one segment, and the memory after it."""
        return self.model(batch, state, **kwargs)


class LossParts:
    """What a model is trained for: actions, and where asked for returns and rewards.

    Args:
        config: says which, and their weights.
        discrete: whether actions are indices.

    Attributes:
        names: of the parts, P; the last one of discrete actions is their accuracy, with weight 0.
        weights: P, their factors in the loss.
    """

    def __init__(self, config: DecisionTransformerConfig, *, discrete: bool) -> None:
        self.discrete = discrete
        self.codec = ReturnCodec(**config.return_codec.model_dump())
        weights = {"action_loss": 1.0}
        if config.return_prediction is not None:
            weights["return_loss"] = config.return_weight
        if config.reward_prediction:
            weights["reward_loss"] = config.reward_weight
        if discrete:
            weights["action_accuracy"] = 0.0
        self.names = tuple(weights)
        self.weights = tuple(weights.values())

    def __call__(self, outputs: Outputs, inputs: SegmentInputs, action: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the sums of one segment's losses over its valid steps, P, and the numbers of those steps, P.

        Args:
            outputs: of the model.
            inputs: that it was given.
            action: (B, K) indices or (B, K, A) vectors, the targets.
        """
        valid_BK = inputs.valid
        error = sequence_cross_entropy if self.discrete else sequence_squared_error
        parts = [(error(outputs.action, action), valid_BK)]
        if "return_loss" in self.names:
            assert outputs.return_logits is not None
            target_BK = self.codec.encode(inputs.return_to_go)
            parts.append((sequence_cross_entropy(outputs.return_logits, target_BK), valid_BK))
        if "reward_loss" in self.names:  # of the previous step's reward, which an episode's first step has not
            assert outputs.reward_logits is not None
            target_BK = reward_ids(inputs.previous_reward)
            rewarded_BK = valid_BK & (inputs.timestep > 0)
            parts.append((sequence_cross_entropy(outputs.reward_logits, target_BK), rewarded_BK))
        if self.discrete:
            hit_BK = (outputs.action.detach().argmax(-1) == action).float()
            parts.append((hit_BK, valid_BK))
        sums_P = torch.stack([masked_sum(loss_BK, mask_BK) for loss_BK, mask_BK in parts])
        return sums_P, torch.stack([mask_BK.sum() for _, mask_BK in parts])


class DecisionTransformerAlgorithm(OfflineAlgorithm[SequencePolicy]):
    """The update rule.

    Args:
        policy: holds the model.
        config: of the agent.
        total_gradient_steps: length of the run.

    Attributes:
        stream_memory: (B, M, D) of this process's rows before their next batch, detached; None if nothing is carried.
        num_updates: gradient steps taken.
        sums_P: losses since the last report.
        last_stats: what the last report said.
        slot_usage: which tasks read which slots in the reporting steps; set by the agent, None without slots.

    Raises:
        ValueError: if no parameter of the model is trainable.
    """

    def __init__(self, *, policy: SequencePolicy, config: DecisionTransformerConfig, total_gradient_steps: int) -> None:
        super().__init__(policy=policy)
        self.config = config
        self.parts = LossParts(config, discrete=policy.action_type == "discrete")
        self.optim = self._create_optimizer(self.model, SequenceOptimizerFactory(config, total_gradient_steps))
        groups = self.optim._optim.param_groups
        self.trainable: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self.stream_memory: Tensor | None = None
        self.num_updates = 0
        self.sums_P = torch.zeros(len(self.parts.names), device=self.device)
        self.weights_P = torch.tensor(self.parts.weights, device=self.device)
        self.last_stats: dict[str, float] = {}
        self.slot_usage: SlotUsage | None = None

    @property
    def model(self) -> SequenceModel:
        """That of the policy."""
        return self.policy.model

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.policy.model.parameters()).device

    @property
    def learning_rate(self) -> float:
        """Of the next gradient step."""
        return float(self.optim._optim.param_groups[0]["lr"])

    def losses(self, batch: SegmentBatch, *, usage: bool = False) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Unrolls a batch from the carried memory, and moves that on.

        Args:
            batch: of S segments.
            usage: whether the memory's usage is measured, in the last segment.

        Returns:
            sums P of the losses over valid steps, the numbers P of those steps, and the usage by name.
        """
        memory = self.stream_memory
        sums_P, counts_P = torch.zeros_like(self.sums_P), torch.zeros_like(self.sums_P)
        last = batch.starts.shape[1] - 1
        for segment in range(last + 1):
            inputs = segment_inputs(batch, segment, self.device)
            action = to_tensor(np.ascontiguousarray(batch.action[:, segment]), self.device)
            memory = self._entered(memory, batch.starts[:, segment])
            outputs, memory = self.model(inputs, memory, usage=usage and segment == last)
            segment_sums_P, segment_counts_P = self.parts(outputs, inputs, action)
            sums_P, counts_P = sums_P + segment_sums_P, counts_P + segment_counts_P
        if self.config.streams and memory is not None:
            self.stream_memory = memory.detach()
        if self.slot_usage is not None and outputs.slot_share_BM is not None:
            self.slot_usage.add(outputs.slot_share_BM, to_tensor(batch.task[:, last], self.device))
        return sums_P, counts_P, outputs.usage or {}

    def _entered(self, memory: Tensor | None, starts_B: np.ndarray) -> Tensor | None:
        """Gives the memory before a segment: the initial one in rows that start an episode."""
        initial = self.model.initial_memory(len(starts_B))
        if initial is None or memory is None:
            return initial
        if memory.shape != initial.shape:
            raise ValueError(
                f"the carried memory has shape {tuple(memory.shape)}, this batch needs {tuple(initial.shape)}"
            )
        starts = to_tensor(starts_B, self.device).view(-1, *[1] * (memory.ndim - 1))
        return torch.where(starts, initial, memory)

    def _update_with_batch(self, batch: Any) -> SequenceTrainingStats:
        """Takes one gradient step on a SegmentBatch."""
        reports = (self.num_updates + 1) % self.config.metrics_period == 0
        sums_P, counts_P, usage = self.losses(batch, usage=reports)
        means_P = sums_P / summed(counts_P).clamp(min=1)
        grad_norm = self._step((means_P * self.weights_P).sum())
        self.num_updates += 1
        self.sums_P += means_P.detach()
        return self._report(grad_norm, usage) if reports else SequenceTrainingStats()

    def _step(self, loss: Tensor) -> Tensor:
        """Takes a gradient step; gives the norm of the gradient before clipping."""
        optimizer = self.optim._optim
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        sum_gradients(self.trainable)
        grad_norm = nn.utils.clip_grad_norm_(self.trainable, self.config.max_grad_norm)
        optimizer.step()
        return grad_norm

    def _report(self, grad_norm: Tensor, usage: dict[str, Tensor]) -> SequenceTrainingStats:
        """Reads the running sums off the device and starts new ones."""
        means_P = summed(self.sums_P) / self.config.metrics_period
        self.last_stats = {
            "loss": float((means_P * self.weights_P).sum()),
            **dict(zip(self.parts.names, means_P.tolist(), strict=True)),
            "grad_norm": float(grad_norm),
            **{f"memory/{name}": float(summed(value)) / num_processes() for name, value in usage.items()},
        }
        self.sums_P.zero_()
        stats = SequenceTrainingStats()
        stats.__dict__.update({name: self.last_stats[name] for name in ("loss", "action_loss", "grad_norm")})
        return stats
