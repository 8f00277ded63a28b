"""What every agent must do, run over every agent config: build, act, learn, save and go on to the same bits."""

import io
import json
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.utils.torch_utils import policy_within_training_step

from agents import AgentConfig, C51Config, CQLConfig, DQNConfig, IQNConfig, PPOConfig, QRDQNConfig, SACConfig
from agents.base_config import ImpalaCnnConfig, MlpConfig, NatureCnnConfig
from agents.decision_transformer import DecisionTransformerConfig
from agents.interface import Agent
from memory import ReplayConfig
from memory.data_summary import DataSummary
from memory.replay import Replay
from memory.trajectory_samplers import SegmentBatch

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (2, 24, 24), np.uint8)
DISCRETE = gymnasium.spaces.Discrete(3)
BOX = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.3], np.float32))
NUM_ENVS, STEPS = 4, 8
SMALL: dict[str, Any] = {"replay": ReplayConfig(capacity=200), "batch_size": 16, "metrics_period": 3}
MLP = MlpConfig(hidden_widths=(16,))
CNN = NatureCnnConfig(hidden_width=16)
PRIORITISED: dict[str, Any] = {**SMALL, "replay": ReplayConfig(capacity=200, prioritised=True)}
FRACTIONS: dict[str, Any] = {"num_fractions": 8, "num_target_fractions": 8, "num_acting_fractions": 4}
DEEPER = MlpConfig(hidden_widths=(16, 16))
STORED: dict[str, Any] = {"batch_size": 16, "metrics_period": 3}
ROLLOUT: dict[str, Any] = {"rollout_steps": STEPS, "minibatch_size": 8}
SEQUENCES: dict[str, Any] = {"width": 16, "context_length": STEPS, "dropout": 0.0, "warmup_steps": 0, **STORED}
RETURNS: dict[str, Any] = {"low": -4.0, "high": 4.0, "bins": 9}


@dataclass(frozen=True)
class Case:
    config: Any
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]


CASES = {
    "dqn": Case(DQNConfig(network=MLP, target_update_period=2, learning_rate=1e-2, **SMALL), VECTOR, DISCRETE),
    "double_dqn_pixels": Case(DQNConfig(network=CNN, double=True, n_step=3, loss="huber", **SMALL), PIXELS, DISCRETE),
    "dqn_bf16": Case(DQNConfig(network=CNN, precision="bf16", learning_rate=1e-3, **SMALL), PIXELS, DISCRETE),
    "dqn_impala": Case(DQNConfig(network=ImpalaCnnConfig(hidden_width=16), **SMALL), PIXELS, DISCRETE),
    "dqn_prioritised": Case(DQNConfig(network=MLP, learning_rate=1e-2, **PRIORITISED), VECTOR, DISCRETE),
    "drq": Case(
        DQNConfig(network=CNN, double=True, dueling=True, augmentation="drq", target_update_period=1, **SMALL),
        PIXELS,
        DISCRETE,
    ),
    "c51": Case(C51Config(network=MLP, target_update_period=2, **SMALL), VECTOR, DISCRETE),
    "rainbow_pixels": Case(C51Config(network=CNN, n_step=3, **PRIORITISED), PIXELS, DISCRETE),
    "der_pixels": Case(
        C51Config(network=CNN, n_step=3, double=True, dueling=True, noisy=True, **PRIORITISED), PIXELS, DISCRETE
    ),
    "noisy_bf16": Case(DQNConfig(network=CNN, noisy=True, precision="bf16", **SMALL), PIXELS, DISCRETE),
    "qr_dqn": Case(QRDQNConfig(network=MLP, num_quantiles=8, learning_rate=1e-2, **PRIORITISED), VECTOR, DISCRETE),
    "iqn": Case(IQNConfig(network=DEEPER, double=True, learning_rate=1e-2, **FRACTIONS, **SMALL), VECTOR, DISCRETE),
    "munchausen_iqn_pixels": Case(
        IQNConfig(network=CNN, munchausen=True, precision="bf16", **FRACTIONS, **SMALL), PIXELS, DISCRETE
    ),
    "noisy_dueling_iqn": Case(
        IQNConfig(network=DEEPER, noisy=True, dueling=True, learning_rate=1e-2, **FRACTIONS, **SMALL), VECTOR, DISCRETE
    ),
    "cql": Case(CQLConfig(network=MLP, target_update_period=2, **STORED), VECTOR, DISCRETE),
    "cql_c51_pixels": Case(
        CQLConfig(network=CNN, distributional=True, double=True, dueling=True, n_step=3, **STORED), PIXELS, DISCRETE
    ),
    "ppo": Case(PPOConfig(network=MLP, shared_body=False, learning_rate_decay=1000, **ROLLOUT), VECTOR, DISCRETE),
    "ppo_pixels": Case(PPOConfig(network=CNN, **ROLLOUT), PIXELS, DISCRETE),
    "ppo_continuous": Case(
        PPOConfig(network=MLP, normalize_observations=True, normalize_returns=True, **ROLLOUT), VECTOR, BOX
    ),
    "decision_transformer": Case(DecisionTransformerConfig(**SEQUENCES), VECTOR, BOX),
    "multi_game_dt_pixels": Case(
        DecisionTransformerConfig(
            layout="mdt",
            position="window",
            tokenizer={"kind": "atari_patch", "patch_size": 12},
            return_prediction=RETURNS,
            reward_prediction=True,
            use_reward_tokens=True,
            acting={"target": {"kind": "inferred"}},
            **SEQUENCES,
        ),
        PIXELS,
        DISCRETE,
    ),
    "dt_mem": Case(
        DecisionTransformerConfig(memory={"kind": "slots", "num_slots": 4}, num_segments=2, **SEQUENCES),
        VECTOR,
        DISCRETE,
    ),
    "rmdt_bf16": Case(
        DecisionTransformerConfig(memory={"kind": "tokens"}, num_segments=2, precision="bf16", **SEQUENCES), VECTOR, BOX
    ),
    "sac": Case(SACConfig(network=MLP, **SMALL), VECTOR, BOX),
    "sac_fixed": Case(SACConfig(network=MLP, alpha=0.1, n_step=2, **SMALL), VECTOR, BOX),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def build(case: Case, seed: int = 0) -> Agent:
    learns_sequences = isinstance(case.config, DecisionTransformerConfig)
    data = {"data": summary(case), "total_gradient_steps": 100} if learns_sequences else {}
    return case.config.build(
        case.observation_space, case.action_space, device="cpu", seed=np.random.SeedSequence(seed), **data
    )


def summary(case: Case) -> DataSummary:
    vectors = case.observation_space is VECTOR
    return DataSummary(
        tasks=("a",),
        obs_mean=(0.0,) * 3 if vectors else None,
        obs_std=(1.0,) * 3 if vectors else None,
        max_length=STEPS,
        return_quantiles={"a": tuple(np.linspace(-2.0, 2.0, 101).tolist())},
        max_abs_reward=1.0,
        num_episodes=NUM_ENVS,
        num_steps=NUM_ENVS * STEPS,
        digests={},
    )


class Segments:
    """A dataset of one random batch of episodes."""

    def __init__(self, case: Case, agent: Agent) -> None:
        rng = np.random.default_rng(5)
        num_rows, num_segments = case.config.batch_size, case.config.num_segments
        lead = (num_rows, num_segments, STEPS)
        num = int(np.prod(lead))
        action = agent.random_action(num).reshape(*lead, *(case.action_space.shape or ()))
        self.batch = SegmentBatch(
            obs=observations(case, num, rng).reshape(*lead, *(case.observation_space.shape or ())),
            previous_action=np.roll(action, 1, axis=2),
            previous_reward=rng.integers(-1, 2, lead).astype(np.float32),
            return_to_go=rng.standard_normal(lead, dtype=np.float32),
            timestep=np.broadcast_to(np.arange(num_segments * STEPS).reshape(lead[1:]), lead).copy(),
            action=action,
            reward=rng.integers(-1, 2, lead).astype(np.float32),
            valid=np.ones(lead, bool),
            starts=np.broadcast_to(np.arange(num_segments) == 0, lead[:2]).copy(),
            task=np.zeros(lead[:2], np.int64),
        )

    def sample(self, batch_size: int) -> tuple[SegmentBatch, np.ndarray]:
        return self.batch, np.arange(batch_size)


def observations(case: Case, num: int, rng: np.random.Generator) -> np.ndarray:
    shape = case.observation_space.shape
    assert shape is not None
    if case.observation_space.dtype == np.uint8:
        return rng.integers(0, 256, (num, *shape), dtype=np.uint8)
    return rng.standard_normal((num, *shape), dtype=np.float32)


def filled_replay(case: Case, agent: Agent) -> Any:
    """A replay of random play, with truncations, terminations and open episodes; segments for sequence models."""
    if isinstance(case.config, DecisionTransformerConfig):
        return Segments(case, agent)
    rng = np.random.default_rng(5)
    own = {"on_policy": ReplayConfig(capacity=NUM_ENVS * STEPS), "offline": ReplayConfig(capacity=200)}
    config = own.get(agent.kind) or case.config.replay
    config = config.model_copy(update={"frames": "full"})
    stored_actions = gymnasium.spaces.Box(-1, 1, BOX.shape, np.float32) if case.action_space is BOX else DISCRETE
    replay = config.build(case.observation_space, stored_actions, NUM_ENVS, rng, lambda line: None)
    obs = observations(case, NUM_ENVS, rng)
    for step in range(STEPS):
        next_obs = observations(case, NUM_ENVS, rng)
        terminated, truncated = np.arange(NUM_ENVS) == step, np.arange(NUM_ENVS) == 6 - step
        replay.add_step(
            obs=obs,
            act=agent.random_action(NUM_ENVS),
            rew=rng.standard_normal(NUM_ENVS).astype(np.float32),
            terminated=terminated,
            truncated=truncated,
            obs_next=next_obs,
            episode_over=terminated | truncated,
        )
        obs = np.where(
            (terminated | truncated).reshape(-1, *[1] * (obs.ndim - 1)), observations(case, NUM_ENVS, rng), next_obs
        )
    return replay


def update(agent: Agent, replay: Any) -> TrainingStats:
    algorithm: Any = agent.algorithm
    with policy_within_training_step(algorithm.policy):
        if agent.kind == "on_policy":
            return algorithm.update(replay, agent.config.minibatch_size, agent.config.num_epochs)  # type: ignore[attr-defined]
        return algorithm.update(replay, agent.config.batch_size)  # type: ignore[attr-defined]


def snapshot(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in agent.weights().items()}


def save(agent: Agent) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """What a checkpoint does: safetensors, a weights-only torch file, JSON."""
    from safetensors.torch import load as load_tensors
    from safetensors.torch import save as save_tensors

    tensors = save_tensors({name: tensor.detach().contiguous() for name, tensor in agent.weights().items()})
    file = io.BytesIO()
    torch.save(agent.optimizer_state(), file)
    file.seek(0)
    return load_tensors(tensors), torch.load(file, weights_only=True), json.loads(json.dumps(agent.counters()))


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_actions_fit_the_space(case: Case) -> None:
    agent = build(case)
    obs = observations(case, 7, np.random.default_rng(0))
    for action in (agent.act(obs)[0], agent.act(obs, explore=True)[0], agent.random_action(7)):
        assert action.shape == (7, *(case.action_space.shape or ()))
        sent = agent.env_action(action)
        assert all(case.action_space.contains(row) for row in sent.astype(case.action_space.dtype))
    greedy = agent.act(obs)[0]
    assert np.array_equal(greedy, agent.act(obs)[0])


def test_feed_forward_agents_keep_no_state(case: Case) -> None:
    agent = build(case)
    if isinstance(case.config, DecisionTransformerConfig):
        pytest.skip("acts on its past: tests/agents/decision_transformer/test_agent.py")
    state = agent.initial_state(3)
    assert agent.act(observations(case, 3, np.random.default_rng(0)), state)[1] is None
    assert state is None and agent.reset_state(state, [1]) is None


def test_one_seed_one_agent(case: Case) -> None:
    before = torch.get_rng_state()
    first, again, other = build(case), build(case), build(case, seed=1)
    assert torch.equal(torch.get_rng_state(), before), "building draws from torch's global generator"
    assert same(first.weights(), again.weights()) and not same(first.weights(), other.weights())
    obs = observations(case, 32, np.random.default_rng(0))
    for _ in range(3):
        assert np.array_equal(first.act(obs, explore=True)[0], again.act(obs, explore=True)[0])
    assert not np.array_equal(first.random_action(32), other.random_action(32))


def test_exploring_draws_from_the_agents_generator_alone(case: Case) -> None:
    agent = build(case)
    obs = observations(case, 4, np.random.default_rng(0))
    numpy_before, torch_before = str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    agent.act(obs, explore=True)
    assert str(np.random.get_state()) == numpy_before  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    counters = agent.counters()
    with agent.using_rng(np.random.default_rng(9)):
        agent.act(obs, explore=True)
    assert agent.counters() == counters


def test_updates_lower_the_loss_on_a_fixed_batch(case: Case) -> None:
    off_policy_vector = case.observation_space is VECTOR and case.config.kind in ("off_policy", "offline")
    rates = dict.fromkeys(("learning_rate", "critic_learning_rate"), 1e-2 if off_policy_vector else 1e-3)
    wanted = {"gamma": 0.0, "augmentation": "none", **rates}  # without bootstrapping, targets stay put
    changes = {name: value for name, value in wanted.items() if name in type(case.config).model_fields}
    case = replace(case, config=case.config.model_copy(update=changes))
    agent = build(case)
    replay = filled_replay(case, agent)
    losses = []
    for _ in range(60):
        update(agent, replay)
        if "loss" in agent.metrics():
            losses.append(agent.metrics().get("value_loss", agent.metrics()["loss"]))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    metrics = agent.metrics()
    assert {"loss", "grad_norm", "learning_rate"} <= metrics.keys()
    assert all(type(value) is float and np.isfinite(value) for value in metrics.values())


def test_a_restored_agent_goes_on_to_the_same_bits(case: Case) -> None:
    agent = build(case)
    replay, twin_replay = filled_replay(case, agent), filled_replay(case, build(case))
    obs = observations(case, 4, np.random.default_rng(0))
    agent.set_env_steps(case.config.model_copy().rollout_steps * 4 if agent.kind == "on_policy" else 30_000)
    for step in range(5):
        torch.manual_seed(step)
        np.random.seed(step)  # noqa: NPY002 (Tianshou shuffles minibatches with it)
        update(agent, replay)
        agent.act(obs, explore=True)
    weights, optimizer, counters = save(agent)
    given = {name: tensor.clone() for name, tensor in weights.items()}

    twin = build(case, seed=3)
    twin.load_weights(weights)
    twin.load_training_state(optimizer, counters)
    of_memories = {"stream_memory", "slot_reads"}
    assert same(weights, given) and set(optimizer) - of_memories == {"optimizers", "lr_schedulers"}, (
        "the caller's mappings were changed"
    )
    assert twin.metrics() == agent.metrics()
    if agent.kind in ("off_policy", "offline") and isinstance(replay, Replay):
        twin_replay.load([replay.new_data(None)], replay.state())
    for step in range(5, 12):
        for one, its_replay in ((agent, replay), (twin, twin_replay)):
            torch.manual_seed(step)
            np.random.seed(step)  # noqa: NPY002
            update(one, its_replay)
        assert np.array_equal(agent.act(obs, explore=True)[0], twin.act(obs, explore=True)[0])
        assert same(agent.weights(), twin.weights()), f"weights part at update {step}"
        assert twin.metrics() == agent.metrics()
    assert json.dumps(agent.counters()) == json.dumps(twin.counters())
    assert same(weights, given), "training went on in the loaded tensors"


def test_acting_needs_the_policy_alone(case: Case) -> None:
    agent, other = build(case), build(case, seed=1)
    obs = observations(case, 16, np.random.default_rng(0))
    update(agent, filled_replay(case, agent))
    policy = {name: tensor for name, tensor in agent.weights().items() if name.startswith("policy.")}
    other.load_weights(policy, acting_only=True)
    assert np.array_equal(other.act(obs)[0], agent.act(obs)[0])
    other.load_weights(agent.weights(), acting_only=True)
    if len(policy) < len(agent.weights()):
        with pytest.raises(ValueError, match="weights lack"):
            other.load_weights(policy)


def test_weights_that_do_not_fit_are_refused_before_anything_is_loaded(case: Case) -> None:
    agent, other = build(case), build(case, seed=1)
    before = snapshot(agent)
    weights = dict(other.weights())
    last = list(weights)[-1]
    with pytest.raises(ValueError, match="'surplus'"):
        agent.load_weights({**weights, "surplus": torch.zeros(1)})
    with pytest.raises(ValueError, match=last):
        agent.load_weights({**weights, last: torch.zeros(2, 3, 5, 7, 1)})
    with pytest.raises(ValueError, match=last):
        agent.load_weights({name: tensor for name, tensor in weights.items() if name != last})
    assert same(agent.weights(), before)


def test_updates_outside_of_a_training_step_are_refused(case: Case) -> None:
    agent = build(case)
    algorithm: Any = agent.algorithm
    arguments = (8, 1) if agent.kind == "on_policy" else (8,)
    with pytest.raises(RuntimeError, match="training step"):
        algorithm.update(filled_replay(case, agent), *arguments)


def test_configs_survive_a_round_trip_and_describe_every_field(case: Case) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AgentConfig)
    assert adapter.validate_python(json.loads(case.config.model_dump_json())) == case.config

    def check(schema: Any) -> None:
        for name, field in schema.model_fields.items():
            assert field.description, f"{schema.__name__}.{name} has no description"

    check(type(case.config))
    parts = ("network", "tokenizer", "memory", "acting")
    for part in (getattr(case.config, name) for name in parts if hasattr(case.config, name)):
        check(type(part))
