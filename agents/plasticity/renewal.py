"""Renewing parts of a value network between gradient steps: ReDo and resets of the last layer.

What is renewed takes the weights of a network built afresh by the same recipe, and Adam forgets its moments. Fresh
weights follow from the seed and the number of the step, so that a resumed run needs no more than that.

Sources: Sokar et al. 2023, section 4; Nikishin et al. 2022; Dopamine, labs/redo/weight_recyclers.py. Deviations:
docs/pruning.md.

Legend: U units of a layer, B states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from tianshou.data import ReplayBuffer
from torch import Tensor, nn

from agents.interface import child_seed
from agents.plasticity.config import PlasticityConfig
from agents.plasticity.units import activity, head_layers, unit_layers
from agents.value_based.q_networks import QNetwork
from memory.replay import Replay

States: TypeAlias = Callable[[int, np.random.Generator], np.ndarray]
"""Gives so many replayed observations B..., drawn with a generator."""
FRESH, DRAW = 0, 1  # children of a renewal's seed


def is_dormant(activity_U: Tensor, threshold: float) -> Tensor:
    """Marks the units U whose activity is at most `threshold` times the layer's mean.

    Args:
        activity_U: mean absolute activation of each unit over states and positions.
        threshold: tau; 0 marks the units that are never active.
    Source: Sokar et al. 2023, definition 3.1.
    """
    return activity_U <= threshold * activity_U.mean()


class Plasticity:
    """What renews a network, and how often it did.

    Args:
        config: what to do.
        network: the online network; its parameters are written in place.
        optimizer: of these parameters.
        fresh: builds another network by the same recipe from a seed.
        seed: of the fresh networks and of the states that activity is measured on.
    """

    def __init__(
        self,
        config: PlasticityConfig,
        network: QNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        fresh: Callable[[np.random.SeedSequence], QNetwork],
        seed: np.random.SeedSequence,
    ) -> None:
        assert config.period is not None
        self.config = config
        self.period = config.period
        self.network = network
        self.optimizer = optimizer
        self.fresh = fresh
        self.seed = seed
        self.layers = unit_layers(network) if config.method == "redo" else []
        self.num_renewals = 0
        self.last_shares: dict[str, float] = {}

    def after_step(self, num_steps: int, states: States) -> bool:
        """Renews what is due after so many gradient steps; says whether any was due.

        Args:
            num_steps: gradient steps taken, the one just made included.
            states: of the replay.
        """
        if num_steps % self.period:
            return False
        seed = child_seed(self.seed, num_steps)
        fresh = dict(self.fresh(child_seed(seed, FRESH)).named_modules())
        if self.config.method == "redo":
            self._recycle(fresh, states, np.random.default_rng(child_seed(seed, DRAW)))
        else:
            self._reset_head(fresh)
        self.num_renewals += 1
        return True

    @torch.no_grad()
    def _recycle(self, fresh: Mapping[str, nn.Module], states: States, rng: np.random.Generator) -> None:
        """Renews the dormant units: all incoming weights first, so that no fresh one stays where zeros belong."""
        assert self.config.num_states is not None and self.config.threshold is not None
        activities = activity(self.network, self.layers, states(self.config.num_states, rng))
        dormant = [is_dormant(activity_U, self.config.threshold) for activity_U in activities]
        modules = dict(self.network.named_modules())
        for layer, dormant_U in zip(self.layers, dormant, strict=True):
            for name in layer.incoming:
                self._renew_rows(modules[name], fresh[name], dormant_U)
        for layer, dormant_U in zip(self.layers, dormant, strict=True):
            for name in layer.outgoing:
                self._silence_columns(modules[name], dormant_U)
        counts = [int(dormant_U.sum()) for dormant_U in dormant]
        num_units = sum(len(dormant_U) for dormant_U in dormant)
        self.last_shares = {"total": sum(counts) / num_units} | {
            layer.name: count / len(dormant_U)
            for layer, count, dormant_U in zip(self.layers, counts, dormant, strict=True)
        }

    @torch.no_grad()
    def _reset_head(self, fresh: Mapping[str, nn.Module]) -> None:
        modules = dict(self.network.named_modules())
        for name in head_layers(self.network):
            for parameter, new in zip(modules[name].parameters(), fresh[name].parameters(), strict=True):
                self._write(parameter, torch.ones_like(parameter, dtype=torch.bool), new.to(parameter.device))

    def _renew_rows(self, module: nn.Module, fresh: nn.Module, dormant_U: Tensor) -> None:
        for parameter, new in zip(module.parameters(), fresh.parameters(), strict=True):
            self._write(parameter, dormant_U.view(-1, *[1] * (parameter.ndim - 1)), new.to(parameter.device))

    def _silence_columns(self, module: nn.Module, dormant_U: Tensor) -> None:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                columns = dormant_U.repeat_interleave(parameter.shape[1] // len(dormant_U))
                where = columns.view(1, -1, *[1] * (parameter.ndim - 2))
                self._write(parameter, where, torch.zeros((), device=parameter.device))

    def _write(self, parameter: nn.Parameter, where: Tensor, value: Tensor) -> None:
        """Sets some entries in place, and Adam's moments there to zero."""
        parameter.copy_(torch.where(where, value, parameter))
        for moment in self.optimizer.state[parameter].values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment.masked_fill_(where, 0.0)

    def metrics(self) -> dict[str, float]:
        """Gives the renewals so far, and of ReDo the share of units recycled at the last one, in total and by layer."""
        shares = {f"plasticity/recycled/{name}": share for name, share in self.last_shares.items()}
        return {"plasticity/renewals": float(self.num_renewals), **shares}

    # State

    def counters(self) -> dict[str, Any]:
        """Gives what a resumed run goes on from, as JSON."""
        return {"num_renewals": self.num_renewals, "last_shares": dict(self.last_shares)}

    def load(self, counters: Mapping[str, Any]) -> None:
        """Restores what `counters` gave."""
        self.num_renewals = counters["num_renewals"]
        self.last_shares = dict(counters["last_shares"])


def replayed_states(buffer: ReplayBuffer) -> States:
    """Gives a source of observations drawn uniformly from a buffer, with a generator other than the buffer's own.

    Args:
        buffer: of this framework, or Tianshou's; is only read.
    """

    def draw(num: int, rng: np.random.Generator) -> np.ndarray:
        indices = (
            buffer.ring.draw(rng, num) if isinstance(buffer, Replay) else rng.choice(buffer.sample_indices(0), num)
        )
        obs: np.ndarray = cast(Any, buffer[indices]).obs
        return obs

    return draw
