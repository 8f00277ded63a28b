"""Pruned agents: counts at every step, what stays untouched, targets, state, and which weights are pruned."""

import copy
import io
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from agents import DQNConfig, PPOConfig, SACConfig
from agents.base_config import MlpConfig, NatureCnnConfig
from agents.interface import Agent
from agents.pruning import PruningConfig
from agents.pruning.distribution import erk, num_kept
from agents.pruning.pruner import Pruner
from agents.pruning.schedule import cubic_sparsity
from memory import ReplayConfig
from memory.replay import Replay

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (2, 24, 24), np.uint8)
DISCRETE = gymnasium.spaces.Discrete(3)
BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
MLP = MlpConfig(hidden_widths=(16, 16))
TOTAL, ENVS, STEPS = 60, 4, 8
SMALL: dict[str, Any] = {"replay": ReplayConfig(capacity=64, frames="full"), "batch_size": 8, "metrics_period": 1}
CASES: dict[str, tuple[Any, Any, Any]] = {
    "dqn": (DQNConfig(network=MLP, target_update_period=7, learning_rate=1e-2, **SMALL), VECTOR, DISCRETE),
    "dqn_pixels": (DQNConfig(network=NatureCnnConfig(hidden_width=16), **SMALL), PIXELS, DISCRETE),
    "sac": (SACConfig(network=MLP, **SMALL), VECTOR, BOX),
    "ppo": (PPOConfig(network=MLP, rollout_steps=STEPS, minibatch_size=32, num_epochs=1), VECTOR, DISCRETE),
    "ppo_own_bodies": (
        PPOConfig(network=MLP, shared_body=False, rollout_steps=STEPS, minibatch_size=32, num_epochs=1),
        VECTOR,
        BOX,
    ),
}
METHODS = ["magnitude", "rigl", "set", "static"]


def build(name: str = "dqn", seed: int = 0) -> Agent:
    config, observations, actions = CASES[name]
    agent: Agent = config.build(observations, actions, device="cpu", seed=np.random.SeedSequence(seed))
    return agent


def prune(agent: Agent, seed: int = 5, **config: Any) -> Pruner:
    return PruningConfig(**config).attach(agent, total_gradient_steps=TOTAL, seed=np.random.SeedSequence(seed))


def filled(name: str) -> Replay:
    config, observations, actions = CASES[name]
    rng = np.random.default_rng(1)
    kind = ReplayConfig(capacity=ENVS * STEPS, frames="full") if config.kind == "on_policy" else config.replay
    replay = kind.build(observations, actions, ENVS, np.random.default_rng(2), lambda line: None)

    def observe() -> np.ndarray:
        shape = (ENVS, *observations.shape)
        if observations is PIXELS:
            return rng.integers(0, 256, shape, dtype=np.uint8)
        return rng.standard_normal(shape, dtype=np.float32)

    obs = observe()
    for _ in range(STEPS):
        over = rng.random(ENVS) < 0.2
        next_obs = observe()
        act = rng.integers(3, size=ENVS) if actions is DISCRETE else rng.uniform(-1, 1, (ENVS, 2)).astype(np.float32)
        reward = rng.standard_normal(ENVS).astype(np.float32)
        kinds = {"terminated": over, "truncated": np.zeros(ENVS, bool), "episode_over": over}
        replay.add_step(obs=obs, act=act, rew=reward, obs_next=next_obs, **kinds)
        obs = next_obs
    return replay


def update(agent: Agent, replay: Replay, step: int = 0) -> None:
    torch.manual_seed(step)
    np.random.seed(step)  # noqa: NPY002 (Tianshou shuffles minibatches with it)
    learner: Any = agent.algorithm
    with policy_within_training_step(learner.policy):
        learner.update(replay, *((32, 1) if agent.kind == "on_policy" else (8,)))


def weights(agent: Agent) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in agent.weights().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
@pytest.mark.parametrize("name", CASES)
def test_zeros_follow_the_schedule_at_every_step(name: str, distribution: Any) -> None:
    agent, replay = build(name), filled(name)
    pruner = prune(agent, sparsity=0.8, distribution=distribution)
    finals = {
        layer.name: erk({x.name: x.weight.shape for x in each.layers}, 0.8)[layer.name]
        if distribution == "erk"
        else 0.8
        for each in pruner.optimizers
        for layer in each.layers
    }
    before = {layer.name: layer.mask.clone() for layer in pruner.layers}
    masks = {layer.name: layer.mask for layer in pruner.layers}
    for step in range(TOTAL):
        update(agent, replay, step)
        level = cubic_sparsity(step, round(0.2 * TOTAL), round(0.8 * TOTAL), 1.0)
        for layer in pruner.layers:
            sparsity = finals[layer.name] * level
            expected = num_kept(layer.size, sparsity) if sparsity else layer.size
            assert int(layer.mask.sum()) == expected == layer.num_kept
            assert int((layer.weight == 0).sum()) == layer.size - expected
            assert torch.all(layer.mask <= before[layer.name]), "masks are not nested"
            assert layer.mask is masks[layer.name]
            before[layer.name] = layer.mask.clone()
    assert [each.num_steps for each in pruner.optimizers] == [TOTAL] * len(pruner.optimizers)
    total = pruner.metrics()["sparsity/total"]
    assert total == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_zero_sparsity_is_the_dense_run_bit_for_bit(name: str, method: Any) -> None:
    dense, pruned = build(name), build(name)
    if method in ("rigl", "set"):
        prune(pruned, sparsity=0.0, method=method, start=0.98, end=0.99)  # they skip the step of a topology update
    else:
        prune(pruned, sparsity=0.0, method=method)
    replays = filled(name), filled(name)
    for step in range(30):
        for agent, replay in zip((dense, pruned), replays, strict=True):
            update(agent, replay, step)
    assert same(dense.weights(), pruned.weights())


def test_masking_gradients_as_well_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.pruning.methods import GradualMagnitude

    results = []
    for masks_gradients in (False, True):
        monkeypatch.setattr(GradualMagnitude, "masks_gradients", masks_gradients)
        agent, replay = build(), filled("dqn")
        prune(agent, sparsity=0.9)
        for step in range(TOTAL):
            update(agent, replay, step)
        results.append(weights(agent))
    assert same(*results)


def test_scores_are_the_weights_before_the_step_and_adam_is_untouched() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    twin = torch.nn.Parameter(weight.detach().clone())
    optimizer, dense = torch.optim.Adam([weight], lr=2.5), torch.optim.Adam([twin], lr=2.5)
    config = PruningConfig(sparsity=0.5, distribution="uniform", start=0.0, end=0.5)
    seed = np.random.SeedSequence(0)
    pruner = Pruner(config, [optimizer], {"weight": weight}, total_gradient_steps=2, seed=seed)
    gradients = [torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, -1.0, 1.0, 1.0]])]
    for gradient in gradients:
        weight.grad, twin.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        dense.step()
    # By |w| before the second step 3 and 4 stay; after it 2 would have grown past both.
    assert pruner.layers[0].mask.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert torch.equal(weight, twin * torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    for name in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(optimizer.state[weight][name], dense.state[twin][name])


def test_equal_weights_give_the_exact_count() -> None:
    agent, replay = build(), filled("dqn")
    pruner = prune(agent, sparsity=0.9, start=0.0, end=0.01)
    with torch.no_grad():
        for layer in pruner.layers:
            layer.weight.fill_(0.5)
    for step in range(3):
        update(agent, replay, step)
    assert all(int((layer.weight != 0).sum()) == layer.num_due(1.0) for layer in pruner.layers)


def test_the_target_has_the_sparsity_of_its_last_copy_and_biases_stay() -> None:
    agent, replay = build(), filled("dqn")
    pruner = prune(agent, sparsity=0.9)
    algorithm: Any = agent.algorithm
    target = algorithm._lagged_networks._lagged_network_pairs[0].target
    at_copy = 0
    for step in range(TOTAL):
        update(agent, replay, step)
        if (step + 1) % 7 == 0:
            at_copy = sum(layer.size - layer.num_kept for layer in pruner.layers)
        assert sum(int((weight == 0).sum()) for weight in target.parameters() if weight.ndim > 1) == at_copy
    assert at_copy > 0
    masked = {id(layer.weight) for layer in pruner.layers}
    for weight in algorithm.policy.model.parameters():
        assert (id(weight) in masked) == (weight.ndim > 1)
        assert weight.ndim > 1 or bool((weight != 0).all())


@pytest.mark.parametrize("method", ["rigl", "set", "static"])
@pytest.mark.parametrize("name", CASES)
def test_sparse_training_starts_sparse_and_stays_as_sparse(name: str, method: Any) -> None:
    agent, replay = build(name), filled(name)
    pruner = prune(agent, sparsity=0.8, method=method)
    first = {layer.name: layer.mask.clone() for layer in pruner.layers}
    for pair in getattr(getattr(agent.algorithm, "_lagged_networks", None), "_lagged_network_pairs", []):
        for target, source in zip(pair.target.parameters(), pair.source.parameters(), strict=True):
            assert torch.equal(target, source), "the target does not start as a copy"
    for step in range(TOTAL):
        update(agent, replay, step)
        for layer in pruner.layers:
            assert int(layer.mask.sum()) == layer.num_due(1.0)
            assert bool((layer.weight[layer.mask == 0] == 0).all())
    moved = any(not torch.equal(layer.mask, first[layer.name]) for layer in pruner.layers)
    assert moved == (method != "static")


def test_rigl_grows_at_the_largest_gradient_from_zero_and_skips_that_step() -> None:
    weight = torch.nn.Parameter(torch.tensor([[4.0, 3.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0]]))
    bias = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight, bias], lr=0.1, fused=True)
    config = PruningConfig(method="rigl", sparsity=0.5, distribution="uniform", drop_fraction=0.99)
    seed = np.random.SeedSequence(0)
    pruner = Pruner(config, [optimizer], {"w": weight, "b": bias}, total_gradient_steps=10, seed=seed)
    layer = pruner.layers[0]
    with torch.no_grad():
        weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]]))
    layer.set_mask(torch.tensor([[True] * 4 + [False] * 4]))
    gradient = torch.tensor([[0.0, 0.5, 1.0, 0.0, 9.0, 0.0, -8.0, 0.0]])
    weight.grad, bias.grad = gradient.clone(), torch.ones(1)
    optimizer.step()
    # All but the largest of four go. Of the rest the gradients 9, -8, 1 are largest; the last one's weight comes back.
    assert layer.mask.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]]
    assert weight.tolist() == [[4.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert bias.item() == 0.0 and not optimizer.state[weight] and not optimizer.state[bias]
    assert torch.equal(weight.grad, gradient * layer.mask) and bias.grad.item() == 1.0


def test_a_capture_records_the_multiplication_and_leaves_counting_to_whoever_replays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, replay = build(), filled("dqn")
    each = prune(agent, sparsity=0.8, start=0.0, end=0.02).optimizers[0]
    monkeypatch.setattr(type(each), "_is_captured", lambda self: True)
    update(agent, replay)
    assert (each.num_steps, sum(layer.size - layer.num_kept for layer in each.layers)) == (0, 0)
    assert each.prepare_step()
    each.count_step()
    each.prepare_step()
    update(agent, replay)
    assert each.num_steps == 1 and sum(layer.size - layer.num_kept for layer in each.layers) > 0
    assert all(int((layer.weight == 0).sum()) == layer.size - layer.num_kept for layer in each.layers)


@pytest.mark.parametrize("method", ["rigl", "set"])
def test_what_grows_starts_without_moments(method: Any) -> None:
    agent, replay = build(), filled("dqn")
    pruner = prune(agent, sparsity=0.8, method=method, start=0.1)
    grown = 0
    for step in range(TOTAL // 2):
        before = {layer.name: layer.mask.bool() for layer in pruner.layers}
        update(agent, replay, step)
        for layer in pruner.layers:
            new = layer.mask.bool() & ~before[layer.name]
            grown += int(new.sum())
            moments = pruner.optimizers[0].optimizer.state[layer.weight]
            assert all(bool((moments[name][new] == 0).all()) for name in ("exp_avg", "exp_avg_sq"))
            assert bool((layer.weight[new] == 0).all())
    assert grown > 0


def saved(agent: Agent) -> tuple[dict[str, Tensor], Any, Any]:
    file = io.BytesIO()
    torch.save(agent.optimizer_state(), file)
    file.seek(0)
    return weights(agent), torch.load(file, weights_only=True), json.loads(json.dumps(agent.counters()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_a_run_resumed_in_mid_schedule_goes_on_to_the_same_bits(name: str, method: Any) -> None:
    agent, replay, twin_replay = build(name), filled(name), filled(name)
    prune(agent, sparsity=0.8, method=method)
    for step in range(25):
        update(agent, replay, step)
    loaded, optimizer, counters = saved(agent)
    given = copy.deepcopy((loaded, optimizer))

    twin = build(name, seed=3)
    pruner = prune(twin, seed=9, sparsity=0.8, method=method)
    twin.load_weights(loaded)
    twin.load_training_state(optimizer, counters)
    assert same(weights(twin), loaded)
    if agent.kind == "off_policy":
        twin_replay.load([replay.new_data(None)], replay.state())
    for step in range(25, TOTAL):
        update(agent, replay, step)
        update(twin, twin_replay, step)
        assert same(agent.weights(), twin.weights()), f"weights part at step {step}"
    assert agent.pruner is not None and pruner.metrics() == agent.pruner.metrics()
    assert same(given[0], loaded) and same(given[1]["pruner"]["masks"], optimizer["pruner"]["masks"])


def test_a_pruned_run_is_evaluated_without_a_pruner_but_not_resumed_without_one() -> None:
    agent, replay, other = build(), filled("dqn"), build(seed=1)
    prune(agent, sparsity=0.8, method="static")
    update(agent, replay)
    loaded, optimizer, counters = saved(agent)
    other.load_weights(loaded, acting_only=True)
    obs = np.random.default_rng(0).standard_normal((9, 3), dtype=np.float32)
    assert np.array_equal(agent.act(obs)[0], other.act(obs)[0])
    with pytest.raises(ValueError, match="needs a pruner"):
        other.load_training_state(optimizer, counters)
    prune(other, sparsity=0.8, exclude=["head"])
    with pytest.raises(ValueError, match="this agent prunes layers"):
        other.load_training_state(optimizer, counters)


@pytest.mark.parametrize("name", ["dqn", "sac", "ppo", "ppo_own_bodies"])
def test_agents_report_their_sparsity(name: str) -> None:
    agent = build(name)
    assert not any("sparsity" in metric for metric in agent.metrics())
    pruner = prune(agent, sparsity=0.8, method="static")
    assert pruner.metrics().items() <= agent.metrics().items()
    assert agent.metrics()["sparsity/total"] == pytest.approx(0.8, abs=0.02)


def test_names_are_readable_and_shared_weights_count_once() -> None:
    assert list(prune(build()).metrics()) == [
        "sparsity/total", "sparsity/layers.0", "sparsity/layers.2", "sparsity/head"
    ]  # fmt: skip
    sac = [layer.name for layer in prune(build("sac")).layers]
    assert sac[:4] == ["actor.layers.0", "actor.layers.2", "actor.mean", "actor.log_std"]
    assert "critic.layers.0" in sac and "critic2.head" in sac and len(sac) == 10
    ppo = [layer.name for layer in prune(build("ppo")).layers]
    assert ppo == ["actor.layers.0", "actor.layers.2", "actor.head", "critic.head"]


def test_patterns_choose_layers_and_leave_other_networks_dense() -> None:
    agent, replay = build("sac"), filled("sac")
    pruner = prune(agent, include=["critic*"], exclude=["*head"], sparsity=0.8, method="static")
    assert [layer.name for layer in pruner.layers] == [
        "critic.layers.0", "critic.layers.2", "critic2.layers.0", "critic2.layers.2"
    ]  # fmt: skip
    update(agent, replay)
    learner: Any = agent.algorithm
    assert all(bool((weight != 0).any()) for weight in learner.policy.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"include": ["hidden"]}, "include='hidden' matches no layer; there are layers.0, layers.2, head"),
        ({"exclude": ["tail"]}, "exclude='tail' matches no layer"),
        ({"exclude": ["*"]}, "leaves no layer to prune"),
    ],
)
def test_patterns_that_fit_nothing_are_refused(config: dict[str, Any], message: str) -> None:
    agent = build()
    with pytest.raises(ValueError, match=message):
        prune(agent, **config)
    assert agent.pruner is None


def test_pruning_twice_and_runs_without_updates_are_refused() -> None:
    agent = build()
    with pytest.raises(ValueError, match="total_gradient_steps=0"):
        PruningConfig().attach(agent, total_gradient_steps=0, seed=np.random.SeedSequence(0))
    prune(agent)
    with pytest.raises(ValueError, match="pruned already"):
        prune(agent)
