"""One CUDA graph for a gradient step: target forward, forward, loss, backward, Adam and the multiplication by masks.

A small network on a batch of 32 may spend more time launching kernels than in them; a graph launches all of a step at
once. Its inputs lie at fixed addresses, into which each batch is copied. What happens on the host stays outside:
sampling, new masks (written in place before a replay), counts, copies to the target network, renewals, reports.

Source: PyTorch, notes/cuda, section CUDA Graphs. Not run on a GPU yet: the tests replay by calling the step again.

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from agents.value_based.records import Transitions

if TYPE_CHECKING:
    from agents.pruning.pruner import PrunedOptimizer

WARM_UP_STEPS = 3
"""Gradient steps before the recording, as in PyTorch's notes. They are steps of the run like all others."""

Step = Callable[[], None]
Inputs = list[Tensor]


class Recorder(Protocol):
    """Turns a step into something that repeats it."""

    def warm_up(self, step: Step) -> None:
        """Takes a step as a recording will."""

    def record(self, step: Step) -> Step:
        """Gives what repeats the step; takes none."""


class CudaRecorder:
    """Records a CUDA graph."""

    def warm_up(self, step: Step) -> None:
        """Takes a step on a stream of its own, as a recording demands of the steps before it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, step: Step) -> Step:
        """Gives the graph's replay. Recording computes nothing."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
        replay: Step = graph.replay
        return replay


class CapturedStep:
    """A gradient step that is recorded once and then replayed.

    Args:
        step: takes a gradient step on a batch, and gives its errors B; must not look at the host.
        optimizer: of that step.
        masks: gives the pruned weights of the optimizer; asked at every step, as pruning comes after building.
        recorder: what records.
    """

    def __init__(
        self,
        step: Callable[[Transitions, Tensor | None], Tensor],
        optimizer: torch.optim.Optimizer,
        masks: Callable[[], Sequence[PrunedOptimizer]],
        recorder: Recorder,
    ) -> None:
        self.step = step
        self.optimizer = optimizer
        self.masks = masks
        self.recorder = recorder
        self.forget()

    def forget(self) -> None:
        """Drops the recording: after the optimizer's tensors were replaced, as loading a checkpoint does."""
        self.num_warm_ups = 0
        self._inputs: Inputs = []
        self._error_B: Tensor | None = None
        self._replay: Step | None = None
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        self._set_capturable(False)  # torch warns of steps that are not captured though they can be

    def take(self, transitions: Transitions, weight_B: Tensor | None) -> Tensor:
        """Takes a gradient step on a batch.

        Args:
            transitions: of the same shapes at every step.
            weight_B: importance weights; None at every step or at none.

        Returns:
            the errors B, in memory that the next step overwrites.

        Raises:
            ValueError: if the networks are not on a CUDA device, or the batch has other shapes than the first one.
        """
        self._fill([*transitions, *([] if weight_B is None else [weight_B])])
        masks = self.masks()
        for each in masks:
            each.prepare_step()
        if self.num_warm_ups < WARM_UP_STEPS:
            self.recorder.warm_up(self._run)
            self.num_warm_ups += 1
        else:
            if self._replay is None:
                self._replay = self._recorded()
            self._replay()
            for parameter, gradient in self._gradients:  # for whoever reads norms
                parameter.grad = gradient
        for each in masks:
            each.count_step()
        assert self._error_B is not None
        return self._error_B

    def _fill(self, batch: Inputs) -> None:
        """Copies a batch to where the recording reads it."""
        if not self._inputs:
            device = self.optimizer.param_groups[0]["params"][0].device
            if isinstance(self.recorder, CudaRecorder) and device.type != "cuda":
                raise ValueError(f"cuda_graph=true needs device=cuda: these networks are on device={device}")
            self._inputs = [torch.empty_like(part, device=device) for part in batch]
        found, expected = ([(tuple(part.shape), part.dtype) for part in parts] for parts in (batch, self._inputs))
        if found != expected:
            raise ValueError(f"cuda_graph=true needs batches of one shape: got {found}, the first had {expected}")
        for part, memory in zip(batch, self._inputs, strict=True):
            memory.copy_(part, non_blocking=True)

    def _run(self) -> None:
        """Takes the step on what lies in the inputs; hooks of the optimizer do no more than what can be replayed."""
        size = len(Transitions._fields)
        weight_B = self._inputs[size] if len(self._inputs) > size else None
        with ExitStack() as stack:
            for each in self.masks():
                stack.enter_context(each.recording())
            error_B = self.step(Transitions(*self._inputs[:size]), weight_B)
        if self._error_B is None:
            self._error_B = torch.empty_like(error_B)
        self._error_B.copy_(error_B)

    def _recorded(self) -> Step:
        self._set_capturable(self._inputs[0].is_cuda)
        self.optimizer.zero_grad(set_to_none=True)  # so that gradients get memory of the recording
        replay = self.recorder.record(self._run)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._gradients = [(each, each.grad) for each in parameters if each.grad is not None]
        return replay

    def _set_capturable(self, capturable: bool) -> None:
        """Tells Adam whether its steps are captured: fused Adam counts them on the device either way."""
        for group in self.optimizer.param_groups:
            group["capturable"] = capturable
