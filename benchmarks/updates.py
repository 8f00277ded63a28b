"""Updates of each network and precision: plain PyTorch, Sextant's DQN, and the same while it is pruned.

    python -m benchmarks.updates --out docs/results/benchmarks

All in one process, in turns, batch 32, with Sextant's own networks: "plain" is target forward, forward, backward and
fused Adam on a batch that stays in memory. DQN samples from a replay of made-up frames. "Pruned" has 95 % of the
weights masked, multiplies them by their masks after every step, and is charged a thousandth of a computation of masks
for each. With --device cuda the same DQNs take part a second time, replayed from CUDA graphs.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.utils.torch_utils import policy_within_training_step
from torch.nn import functional

from agents import DQNConfig
from agents.base_config import ImpalaCnnConfig, NatureCnnConfig
from agents.pruning.config import PruningConfig
from agents.value_based.captured import WARM_UP_STEPS
from agents.value_based.dqn import DQNAgent
from benchmarks.tables import Cell, Goal, Result
from benchmarks.turns import median_ratio
from memory.config import ReplayConfig
from memory.replay import Replay
from trainers.threads import keep_freed_memory

PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = gymnasium.spaces.Discrete(6)
BATCH, NUM_ENVS, STEPS, MASK_PERIOD = 32, 8, 2, 1_000
NETWORKS: dict[str, NatureCnnConfig | ImpalaCnnConfig] = {
    "Nature": NatureCnnConfig(),
    "IMPALA x1": ImpalaCnnConfig(),
    "IMPALA x3": ImpalaCnnConfig(width=3),
}
Update = Callable[[], None]
"""Makes STEPS gradient steps."""


def make_replay(capacity: int = 2_000) -> Replay:
    """Gives a replay full of random frames."""
    replay = ReplayConfig(capacity=capacity).build(
        PIXELS, ACTIONS, NUM_ENVS, np.random.default_rng(0), lambda line: None
    )
    rng, never = np.random.default_rng(0), np.zeros(NUM_ENVS, bool)
    obs = np.zeros((NUM_ENVS, 4, 84, 84), np.uint8)
    for _ in range(capacity // NUM_ENVS):
        newest = rng.integers(0, 256, (NUM_ENVS, 1, 84, 84), dtype=np.uint8)
        obs_next = np.concatenate([obs[:, 1:], newest], axis=1)
        replay.add_step(
            obs=obs,
            act=rng.integers(6, size=NUM_ENVS),
            rew=rng.standard_normal(NUM_ENVS).astype(np.float32),
            terminated=never,
            truncated=never,
            obs_next=obs_next,
            episode_over=never,
        )
        obs = obs_next
    return replay


def make_agent(
    network: NatureCnnConfig | ImpalaCnnConfig, precision: str, device: str, *, cuda_graph: bool = False
) -> DQNAgent:
    """Gives Dopamine's DQN on a network."""
    config = DQNConfig.model_validate({"network": network, "precision": precision, "cuda_graph": cuda_graph})
    return config.build(PIXELS, ACTIONS, device=device, seed=np.random.SeedSequence(0))


def plain(agent: DQNAgent, batch: Any, device: str) -> Update:
    """Gives the update in plain PyTorch, on copies of the agent's networks."""
    online, target = copy.deepcopy(agent.dqn.policy.model), copy.deepcopy(agent.dqn.target)
    optimizer = torch.optim.Adam(online.parameters(), lr=6.25e-5, eps=1.5e-4, fused=True)
    obs, next_obs = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (batch.obs, batch.obs_next))
    action = torch.as_tensor(batch.act, device=device).reshape(-1, 1)
    reward = torch.as_tensor(batch.rew, dtype=torch.float32, device=device)

    def update() -> None:
        for _ in range(STEPS):
            with torch.no_grad():
                goal = reward + 0.99 * target(next_obs)[0].amax(1)
            loss = functional.mse_loss(online(obs)[0].gather(1, action).squeeze(1), goal)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    return update


def dqn(agent: DQNAgent, replay: Replay) -> Update:
    """Gives the agent's own updates."""

    def update() -> None:
        with policy_within_training_step(agent.dqn.policy):
            agent.update(replay, BATCH, STEPS)

    return update


def pruned(agent: DQNAgent) -> float:
    """Prunes the agent to 95 %, as a long run does, and gives the seconds that a computation of masks takes."""
    steps = 1_000_000
    pruner = PruningConfig(start=0.0, end=1.0).attach(agent, total_gradient_steps=steps, seed=np.random.SeedSequence(0))
    seconds = []
    for step in (*range(0, steps, steps // 8), steps - 1):
        started = time.perf_counter()
        for optimizer in pruner.optimizers:
            optimizer.num_steps = step
            assert optimizer.prepare_step()
            optimizer.count_step()
        seconds.append(time.perf_counter() - started)
    pruner.apply()
    return median(seconds)


def measure(network: str, precision: str, rounds: int, device: str) -> tuple[dict[str, list[float]], float]:
    """Lets the contestants take turns.

    Returns:
        updates per second of every turn, by contestant; and the seconds that one computation of masks takes.
    """
    replay = make_replay()
    dense, sparse = (make_agent(NETWORKS[network], precision, device) for _ in range(2))
    mask_seconds = pruned(sparse)
    contestants = {
        "plain": plain(dense, replay.sample(BATCH)[0], device),
        "DQN": dqn(dense, replay),
        "DQN, pruned": dqn(sparse, replay),
    }
    if device == "cuda":
        graphs = [make_agent(NETWORKS[network], precision, device, cuda_graph=True) for _ in range(2)]
        pruned(graphs[1])
        contestants |= {"DQN, CUDA graph": dqn(graphs[0], replay), "DQN, pruned, CUDA graph": dqn(graphs[1], replay)}
        for _ in range(WARM_UP_STEPS):  # two gradient steps each: past the recording
            contestants["DQN, CUDA graph"]()
            contestants["DQN, pruned, CUDA graph"]()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds + 1):
        for name in list(contestants) if index % 2 else reversed(list(contestants)):
            started = time.perf_counter()
            contestants[name]()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            if "pruned" in name:
                seconds += mask_seconds * STEPS / MASK_PERIOD
            if index:
                rates[name].append(STEPS / seconds)
    return rates, mask_seconds


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=60, help="turns of two updates")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="folder for updates.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows: list[list[Cell]] = []
    goals: list[Goal] = []
    samples: dict[str, list[float]] = {}
    for network in options.networks:
        for precision in options.precisions:
            rates, mask_seconds = measure(network, precision, options.rounds, options.device)
            for name, values in rates.items():
                masks = 1000 * mask_seconds if "pruned" in name else None
                share = median_ratio(values, rates["plain"])
                rows.append([network, precision, name, median(values), share, masks])
                samples[f"{network}, {precision}, {name}"] = values
            cost = 1.0 - median_ratio(rates["DQN, pruned"], rates["DQN"])
            goals.append(
                Goal(f"{network}, {precision}: share of updates/s that pruning costs", cost, 0.03, at_least=False)
            )
    Result(
        benchmark="updates",
        question="How fast are the updates of each network and precision, and what does pruning cost them?",
        settings={"batch": BATCH, "threads": options.threads, "rounds": options.rounds, "device": options.device},
        columns=[
            "network",
            "precision",
            "contestant",
            "updates/s",
            "share of plain PyTorch",
            "ms to compute masks",
        ],
        rows=rows,
        goals=goals,
        samples=samples,
    ).publish(options.out)


if __name__ == "__main__":
    main()
