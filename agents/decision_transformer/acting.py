"""What an agent remembers while it acts: its context, the memory at the context's start, the return still asked for.

The context is what training saw: the last K steps (sliding), or the steps since the last multiple of K (segment). It is
computed anew at every step, exactly; K never changes, so neither does the time an action takes. In segments, the memory
is only replaced when a segment is full: two forwards of one step cannot write twice.

Every function gives a new state and leaves the old one as it was. Rows never meet, unless a memory is shuffled on
purpose.

Legend: N environments, K steps of a context, O observation shape, A action shape (empty for discrete actions), M memory
slots, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from agents.decision_transformer.inputs import PromptInputs, SegmentInputs
from memory.working_memory import WorkingMemory


@dataclass(frozen=True, eq=False)
class ActingState:
    """N rows, each with an episode of its own.

    Attributes:
        obs: (N, K, *O), real steps first; what follows `count` is padding.
        previous_action: (N, K, *A), indices or vectors in [-1, 1].
        previous_reward: (N, K) float32, clipped where the data were.
        return_to_go: (N, K) float32, the return asked for at each step.
        timestep: (N, K) int64.
        count: (N,) int64, real steps of the context.
        step: (N,) int64, env steps of the episode.
        last_action: (N, *A), the action before the next step.
        last_reward: (N,) float32, what came in since.
        target: (N,) float32, the return to ask for at the next step.
        task: (N,) int64, place in the data's list of tasks; -1 unknown.
        memory: (N, M, D) at the context's start, or None.
    """

    obs: Tensor
    previous_action: Tensor
    previous_reward: Tensor
    return_to_go: Tensor
    timestep: Tensor
    count: Tensor
    step: Tensor
    last_action: Tensor
    last_reward: Tensor
    target: Tensor
    task: Tensor
    memory: Tensor | None

    def __repr__(self) -> str:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = (f"{name}={list(tensor.shape)}" for name, tensor in tensors.items() if tensor is not None)
        return f"ActingState({', '.join(shown)})"

    def __len__(self) -> int:
        """Gives N."""
        return len(self.count)

    @property
    def context_length(self) -> int:
        """K."""
        return self.timestep.shape[1]

    @property
    def newest(self) -> Tensor:
        """Place of each row's newest step in the context, (N,)."""
        return (self.count - 1).clamp(min=0)

    def restarted(self, rows: Tensor, target: Tensor, task: Tensor, memory: Tensor | None) -> Self:
        """Gives the state with rows at the start of an episode.

        Args:
            rows: which, int64.
            target: return to ask them for, (len(rows),).
            task: (len(rows),) int64.
            memory: initial one of these rows, or None.
        """
        changed = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None:
                changed[field.name] = tensor.clone()
                changed[field.name][rows] = 0
        changed["target"][rows], changed["task"][rows] = target, task
        if memory is not None:
            changed["memory"][rows] = memory
        return replace(self, **changed)

    def appended(self, obs: Tensor) -> Self:
        """Gives the state with one step more in each row's context; a full context drops its oldest step.

        Args:
            obs: (N, *O).
        """
        every = torch.arange(len(self), device=obs.device)
        full = self.count == self.context_length
        place = torch.where(full, self.count - 1, self.count)
        source = (torch.arange(self.context_length, device=obs.device) + full.unsqueeze(1).long()).clamp(
            max=self.context_length - 1
        )
        step = {
            "obs": obs,
            "previous_action": self.last_action,
            "previous_reward": self.last_reward,
            "return_to_go": self.target,
            "timestep": self.step,
        }
        changed: dict[str, Any] = {}
        for name, newest in step.items():
            changed[name] = getattr(self, name)[every.unsqueeze(1), source]
            changed[name][every, place] = newest
        return replace(
            self, **changed, count=place + 1, step=self.step + 1, last_reward=torch.zeros_like(self.last_reward)
        )

    def asking(self, target: Tensor) -> Self:
        """Gives the state in which the newest step asks for these returns (N,) instead."""
        return_to_go = self.return_to_go.clone()
        return_to_go[torch.arange(len(self), device=target.device), self.newest] = target
        return replace(self, return_to_go=return_to_go)

    def acted(self, action: Tensor) -> Self:
        """Gives the state after actions (N, *A) were chosen."""
        return replace(self, last_action=action)

    def rewarded(self, rows: Tensor, reward: Tensor, *, decrement: bool) -> Self:
        """Gives the state after rewards came in.

        Args:
            rows: which, int64.
            reward: (len(rows),), NaN where it is not known (yet): such a row goes on asking for the same return.
            decrement: whether rewards are taken off the return that is asked for.
        """
        known = reward.nan_to_num(nan=0.0)
        last_reward, target = self.last_reward.clone(), self.target.clone()
        last_reward[rows] += known
        if decrement:
            target[rows] -= known
        return replace(self, last_reward=last_reward, target=target)

    def committed(self, memory: Tensor | None) -> Self:
        """Gives the state in which full contexts are emptied, and their memory is what they left behind.

        Args:
            memory: (N, M, D) after each context, or None.
        """
        full = self.count == self.context_length
        count = torch.where(full, 0, self.count)
        if self.memory is None or memory is None:
            return replace(self, count=count)
        kept = torch.where(full.view(-1, *[1] * (memory.ndim - 1)), memory, self.memory)
        return replace(self, count=count, memory=kept)

    def inputs(self, prompt: PromptInputs | None = None) -> SegmentInputs:
        """Gives the context as the model takes it, padded on the right."""
        steps = torch.arange(self.context_length, device=self.count.device)
        return SegmentInputs(
            obs=self.obs,
            previous_action=self.previous_action,
            previous_reward=self.previous_reward,
            return_to_go=self.return_to_go,
            timestep=self.timestep,
            valid=steps < self.count.unsqueeze(1),
            task=self.task,
            prompt=prompt,
        )


def at_newest(tensor: Tensor, state: ActingState) -> Tensor:
    """Gives the newest step (N, ...) of what the model made of a context (N, K, ...)."""
    return tensor[torch.arange(len(state), device=tensor.device), state.newest]


@contextmanager
def nothing_read(model: nn.Module) -> Iterator[None]:
    """Makes slot memories add nothing to their tokens meanwhile; they are written as ever."""
    cells = [module for module in model.modules() if isinstance(module, WorkingMemory)]
    handles = [cell.output.register_forward_hook(lambda _, __, output: torch.zeros_like(output)) for cell in cells]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
