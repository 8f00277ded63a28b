"""The base class: state conversion, seeds, and agents without an algorithm."""

import io

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.algorithm.optim import LRSchedulerFactoryLinear

from agents.base_config import MlpConfig
from agents.interface import child_seed, plain, seeded_initialization, to_agent_action, to_env_action
from agents.scripted import RandomAgent
from agents.value_based.config import DQNConfig

SPACE = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def test_plain_turns_numpy_scalars_into_python_numbers_and_keeps_the_rest() -> None:
    tensor = torch.ones(2)
    state = plain({"a": [np.float64(0.5), (np.int64(3), None)], 0: {"t": tensor}, "b": np.bool_(True)})
    assert type(state["a"][0]) is float and type(state["a"][1]) is tuple and type(state["a"][1][0]) is int
    assert state["b"] is True and state[0]["t"] is tensor


def test_learning_rate_schedulers_with_numpy_scalars_survive_a_weights_only_file() -> None:
    """Tianshou's linear schedule leaves a numpy scalar as learning rate, and forgets its position."""
    config = DQNConfig(network=MlpConfig(hidden_widths=(4,)))
    agents = [
        config.build(SPACE, gymnasium.spaces.Discrete(2), device="cpu", seed=np.random.SeedSequence(i)) for i in (0, 1)
    ]
    factory = LRSchedulerFactoryLinear(max_epochs=2, epoch_num_steps=10, collection_step_num_env_steps=1)
    for agent in agents:
        agent.algorithm.lr_schedulers.append(factory.create_scheduler(agent._optimizers()[0]))
    for _ in range(3):
        agents[0]._optimizers()[0].step()
        agents[0].algorithm.lr_schedulers[0].step()
    assert isinstance(agents[0]._optimizers()[0].param_groups[0]["lr"], np.floating)
    file = io.BytesIO()
    torch.save(agents[0].optimizer_state(), file)
    file.seek(0)
    agents[1].load_training_state(torch.load(file, weights_only=True), agents[0].counters())
    rates = [agent._optimizers()[0].param_groups[0]["lr"] for agent in agents]
    assert rates[0] == rates[1] and agents[1].algorithm.lr_schedulers[0].last_epoch == 3


def test_a_checkpoint_with_another_number_of_optimizers_is_refused() -> None:
    agent = DQNConfig(network=MlpConfig()).build(
        SPACE, gymnasium.spaces.Discrete(2), device="cpu", seed=np.random.SeedSequence(0)
    )
    with pytest.raises(ValueError, match="holds 0 optimizers, this agent has 1"):
        agent.load_training_state({"optimizers": [], "lr_schedulers": []}, agent.counters())


def test_agents_that_do_not_learn_act_and_say_so() -> None:
    action_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    agent = RandomAgent(observation_space=SPACE, action_space=action_space, rng=np.random.default_rng(0))
    action, state = agent.act(np.zeros((2000, 3)))
    assert state is None and agent.weights() == {} and agent.optimizer_state() == {} and agent.kind == "scripted"
    sent = agent.env_action(action)
    assert sent.min() < -1.9 and sent.max() > 1.9 and abs(sent.mean()) < 0.1
    with pytest.raises(TypeError, match="RandomAgent does not learn"):
        _ = agent.algorithm
    twin = RandomAgent(observation_space=SPACE, action_space=action_space, rng=np.random.default_rng(1))
    twin.load_weights({})
    twin.load_training_state({}, agent.counters())
    assert np.array_equal(twin.random_action(5), agent.random_action(5))


def test_random_discrete_actions_are_uniform() -> None:
    agent = RandomAgent(
        observation_space=SPACE, action_space=gymnasium.spaces.Discrete(4), rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(np.bincount(agent.act(np.zeros((8000, 3)))[0]) / 8000, 0.25, atol=0.02)


def test_scaled_actions_never_leave_awkward_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        low = rng.normal(size=3).astype(np.float32)
        space = gymnasium.spaces.Box(low, low + rng.random(3, dtype=np.float32) + np.float32(1e-3), dtype=np.float32)
        for action in (-np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), rng.normal(size=(1, 3))):
            assert space.contains(to_env_action(action, space)[0])


def test_children_of_a_seed_differ_and_do_not_move_it() -> None:
    seed = np.random.SeedSequence(7)
    assert child_seed(seed, 0).generate_state(2).tolist() != child_seed(seed, 1).generate_state(2).tolist()
    assert seed.n_children_spawned == 0


def test_initialisation_leaves_torchs_generator_alone_even_on_errors() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded_initialization(np.random.SeedSequence(0)):
        torch.randn(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_env_actions_map_back_to_the_agents() -> None:
    box = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))
    action = np.array([[-1.0, 1.0], [0.5, -0.25]], np.float32)
    np.testing.assert_allclose(to_agent_action(to_env_action(action, box), box), action, atol=1e-6)
    shifted = gymnasium.spaces.Discrete(3, start=5)
    np.testing.assert_array_equal(to_agent_action(np.array([5, 7]), shifted), [0, 2])
