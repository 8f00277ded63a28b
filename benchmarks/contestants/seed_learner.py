"""One process of `benchmarks.seeds`: Sextant's DQN of one seed, or plain PyTorch that trains several seeds as a batch.

The batch is as fast as batching could be made easily: one `torch.func.vmap` over stacked networks, on observations that
stay in memory as floats, one Adam for all.

Legend: S seeds, B batch, A actions.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from agents.networks import PRECISIONS
from agents.value_based.captured import WARM_UP_STEPS
from benchmarks.turns import Turn
from benchmarks.updates import BATCH, NETWORKS, STEPS, Update, dqn, make_agent, make_replay
from trainers.threads import keep_freed_memory


def batched(network: str, precision: str, num_seeds: int, device: str) -> Update:
    """Gives updates of several networks at once: target forward, forward, backward and Adam, without any replay."""
    model = make_agent(NETWORKS[network], precision, device).dqn.policy.model
    layers = nn.Sequential(copy.deepcopy(model.body.layers), copy.deepcopy(model.head))
    online, _ = stack_module_state([layers] * num_seeds)
    target = {name: parameter.detach().clone() for name, parameter in online.items()}
    optimizer = torch.optim.Adam(online.values(), lr=6.25e-5, eps=1.5e-4, fused=True)
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Tensor:
        return torch.from_numpy(rng.random((num_seeds, BATCH, *shape), dtype=np.float32)).to(device)

    obs, next_obs, reward_SB = drawn(4, 84, 84), drawn(4, 84, 84), drawn()
    action_SB1 = torch.from_numpy(rng.integers(model.num_actions, size=(num_seeds, BATCH, 1))).to(device)

    def values(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        q_BA: Tensor = functional_call(layers, parameters, (images,))
        return q_BA

    def values_of_all(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32"):
            q_SBA: Tensor = vmap(values)(parameters, images)
        return q_SBA.float()

    def update() -> None:
        for _ in range(STEPS):
            with torch.no_grad():
                goal_SB = reward_SB + 0.99 * values_of_all(target, next_obs).amax(2)
            q_SB = values_of_all(online, obs).gather(2, action_SB1).squeeze(2)
            loss = (q_SB - goal_SB).square().mean(1).sum()  # a sum over seeds: none changes another's gradient
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    return update


def own(options: argparse.Namespace) -> Update:
    """Gives the updates of Sextant's DQN with a replay of its own."""
    network: Any = NETWORKS[options.network]
    agent = make_agent(network, options.precision, options.device, cuda_graph=options.cuda_graph)
    return dqn(agent, make_replay())


def main() -> None:
    """Works whenever told to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", required=True, choices=list(NETWORKS))
    parser.add_argument("--precision", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--batched", type=int, default=0, help="seeds in one batch; 0 is Sextant's DQN of one seed")
    parser.add_argument("--tick", type=int, required=True, help="updates between two looks at the clock")
    options = parser.parse_args()
    keep_freed_memory()
    update = (
        batched(options.network, options.precision, options.batched, options.device)
        if options.batched
        else own(options)
    )
    for _ in range(WARM_UP_STEPS):
        update()
    turn = Turn()
    turn.begin()
    while True:
        for _ in range(options.tick // STEPS):
            update()
        if options.device == "cuda":
            torch.cuda.synchronize()
        turn.tick()


if __name__ == "__main__":
    main()
