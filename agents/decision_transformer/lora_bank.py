"""One set of low-rank adapters for each task of a model: what is learnt of one task cannot be lost to the next.

Source: Hu et al. 2022, section 4, which names switching between tasks as a use of LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from agents.decision_transformer.lora import LoRALinear, Select, add_lora, lora_layers, reset_adapter_


class LoRABank:
    """One set of adapters for each task, of which the model uses one at a time.

    Args:
        module: the model, on its device; its selected layers are replaced as by `add_lora`.
        select: see `add_lora`.
        tasks: names, each once. The first is switched to.
        rank: R.
        alpha: scale times rank.
        generator: of the initial weights.

    Attributes:
        task: the one in use.

    Raises:
        ValueError: if there is no task or one twice, or for the reasons of `add_lora`.
    """

    def __init__(
        self,
        module: nn.Module,
        select: Select,
        tasks: Sequence[str],
        rank: int,
        alpha: float,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks={list(tasks)}: must be one or more different names")
        add_lora(module, select, rank, alpha, generator=generator)
        self._layers = lora_layers(module)
        first = {f"{name}.{part}": getattr(layer, part) for name, layer, part in self._parts()}
        self._sets = {tasks[0]: first}
        for task in tasks[1:]:
            self._sets[task] = {name: nn.Parameter(torch.empty_like(tensor)) for name, tensor in first.items()}
            for name in self._layers:
                reset_adapter_(self._sets[task][f"{name}.lora_a"], self._sets[task][f"{name}.lora_b"], generator)
        self.task = tasks[0]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order given."""
        return tuple(self._sets)

    def parameters(self, task: str) -> list[nn.Parameter]:
        """Gives what is trained for a task; the same objects before and after any switch.

        Raises:
            ValueError: if the task is unknown.
        """
        return list(self._of(task).values())

    def switch(self, task: str) -> None:
        """Makes the model use the adapters of a task; merged layers are unmerged.

        Raises:
            ValueError: if the task is unknown.
        """
        parameters = self._of(task)
        for name, layer, part in self._parts():
            layer.unmerge_()
            setattr(layer, part, parameters[f"{name}.{part}"])
        self.task = task

    def state_dict(self) -> dict[str, Tensor]:
        """Gives the adapters of all tasks, detached, as `task/layer.part`."""
        return {f"{task}/{name}": tensor.detach() for task, part in self._sets.items() for name, tensor in part.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies adapters in place.

        Args:
            state: what `state_dict` gave, of a bank with the same tasks, layers and rank.

        Raises:
            ValueError: if names or a shape differ. Nothing is changed then.
        """
        own = self.state_dict()
        if different := sorted(own.keys() ^ state.keys()):
            raise ValueError(f"adapters {different} are in one of bank and state only")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}: expected {tuple(tensor.shape)}")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.switch(self.task)

    def _of(self, task: str) -> dict[str, nn.Parameter]:
        """Gives the set of a task."""
        if task not in self._sets:
            raise ValueError(f"task={task!r}: the bank has {sorted(self._sets)}")
        return self._sets[task]

    def _parts(self) -> Iterator[tuple[str, LoRALinear, str]]:
        """Gives every trained tensor's layer name, layer and attribute."""
        for name, layer in self._layers.items():
            yield from ((name, layer, part) for part in ("lora_a", "lora_b"))
