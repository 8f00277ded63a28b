"""Steps that are replayed: the same bits as steps taken, whatever is sampled, masked, copied or reported between them.

Without a CUDA device the recording is the step itself, called again on the same memory.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tianshou.utils.torch_utils import policy_within_training_step

from agents.base_config import MlpConfig
from agents.plasticity.config import PlasticityConfig
from agents.pruning import PruningConfig
from agents.value_based import C51Config, DQNConfig, IQNConfig, QRDQNConfig
from agents.value_based.agent import ValueAgent
from agents.value_based.captured import WARM_UP_STEPS, CapturedStep, CudaRecorder
from agents.value_based.records import Transitions
from memory import ReplayConfig
from tests.agents.pruning.test_pruner import saved
from tests.agents.value_based.test_dqn import ACTIONS, SPACE, filled, update

MEMBERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "dqn": (DQNConfig, {}),
    "double_dqn": (DQNConfig, {"double": True, "dueling": True, "loss": "huber", "n_step": 3}),
    "c51": (C51Config, {}),
    "qr_dqn": (QRDQNConfig, {"num_quantiles": 8}),
}
STEPS = 50


class Rerun:
    """Replays a step by calling it again."""

    def __init__(self) -> None:
        self.num_recordings = 0

    def warm_up(self, step: Callable[[], None]) -> None:
        step()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        self.num_recordings += 1
        return step


def build(
    name: str, *, replayed: bool, pruning: str | None = None, device: str = "cpu", seed: int = 0, **changes: Any
) -> ValueAgent:
    member, options = MEMBERS[name]
    usual: dict[str, Any] = {
        "network": MlpConfig(hidden_widths=(8, 8)),
        "batch_size": 4,
        "metrics_period": 4,
        "target_update_period": 7,
        "learning_rate": 1e-2,
        "replay": ReplayConfig(capacity=64),
    }
    config = member(**{**usual, **options, **changes}, cuda_graph=replayed)
    agent: ValueAgent = config.build(SPACE, ACTIONS, device=device, seed=np.random.SeedSequence(seed))
    if replayed and device == "cpu":
        assert agent.learner.captured is not None
        agent.learner.captured.recorder = Rerun()
    if pruning is not None:
        pruner = PruningConfig.model_validate({"method": pruning, "sparsity": 0.8})
        pruner.attach(agent, total_gradient_steps=STEPS, seed=np.random.SeedSequence(1))
    return agent


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("pruning", [None, "magnitude", "static"])
@pytest.mark.parametrize("name", MEMBERS)
def test_replayed_steps_are_the_steps_taken_bit_for_bit(name: str, pruning: str | None, prioritised: bool) -> None:
    replay = ReplayConfig(capacity=64, prioritised=prioritised)
    taken, replayed = (build(name, replayed=each, pruning=pruning, replay=replay) for each in (False, True))
    replays = filled(taken), filled(replayed)
    for step in range(STEPS):
        stats = [update(agent, each) for agent, each in zip((taken, replayed), replays, strict=True)]
        assert [each.loss for each in stats[1:]] == [stats[0].loss]
        assert (stats[0].loss is None) == bool((step + 1) % 4)
        for one, other in zip(taken.learner.parameters(), replayed.learner.parameters(), strict=True):
            assert torch.equal(one, other), f"weights part at step {step}"
    assert taken.metrics() == replayed.metrics() and taken.counters() == replayed.counters()
    assert ("sparsity/total" in replayed.metrics()) == (pruning is not None)
    captured: Any = replayed.learner.captured
    assert captured.recorder.num_recordings == 1
    if prioritised:
        assert replays[0].priorities is not None and replays[1].priorities is not None
        held = replays[0].ring.all_indices()
        np.testing.assert_array_equal(replays[0].priorities.leaves(held), replays[1].priorities.leaves(held))


def test_masks_change_between_replays_and_hooks_count_nothing_twice() -> None:
    agent = build("dqn", replayed=True, pruning="magnitude")
    assert agent.pruner is not None
    [each], replay = agent.pruner.optimizers, filled(agent)
    kept = []
    for step in range(STEPS):
        update(agent, replay)
        kept.append(sum(layer.num_kept for layer in each.layers))
        assert each.num_steps == step + 1
        assert all(int((layer.weight == 0).sum()) == layer.size - layer.num_kept for layer in each.layers)
    assert len(set(kept)) > 10 and kept == sorted(kept, reverse=True)


def test_several_updates_are_taken_one_by_one() -> None:
    many, single = build("dqn", replayed=True), build("dqn", replayed=True)
    replays = filled(many), filled(single)
    with policy_within_training_step(many.learner.policy):
        many.update(replays[0], 4, 9)
    for _ in range(9):
        update(single, replays[1])
    assert many.learner.num_updates == 9
    for one, other in zip(many.learner.parameters(), single.learner.parameters(), strict=True):
        assert torch.equal(one, other)


def test_renewals_fall_between_replays() -> None:
    plasticity = PlasticityConfig(method="redo", period=6, threshold=0.5)
    taken, replayed = (build("dqn", replayed=each, plasticity=plasticity) for each in (False, True))
    replays = filled(taken), filled(replayed)
    for _ in range(20):
        update(taken, replays[0])
        update(replayed, replays[1])
    assert taken.metrics() == replayed.metrics()
    assert all(torch.equal(one, replayed.weights()[name]) for name, one in taken.weights().items())


def test_a_resumed_run_records_anew_and_goes_on_to_the_same_bits() -> None:
    agent, twin = (build("dqn", replayed=True, pruning="magnitude", seed=seed) for seed in (0, 3))
    replay, twin_replay = filled(agent), filled(twin)
    for _ in range(20):
        update(agent, replay)
    for _ in range(6):
        update(twin, twin_replay)
    weights, optimizer, counters = saved(agent)
    optimizer["optimizers"][0]["param_groups"][0]["capturable"] = True  # as a recording on a GPU leaves it
    twin.load_weights(weights)
    twin.load_training_state(optimizer, counters)
    twin_replay.load([replay.new_data(None)], replay.state())
    captured: Any = twin.learner.captured
    assert not captured.optimizer.param_groups[0]["capturable"]
    for _ in range(20):
        update(agent, replay)
        update(twin, twin_replay)
    assert all(torch.equal(one, twin.weights()[name]) for name, one in agent.weights().items())
    assert captured.recorder.num_recordings == 2


def transitions(start: float, size: int = 2) -> Transitions:
    rows = torch.arange(start, start + size)
    return Transitions(rows.unsqueeze(1), rows.long().unsqueeze(1), rows + 10, rows + 20, rows.unsqueeze(1) + 30)


def test_a_recording_reads_each_batch_at_the_same_addresses() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    seen: list[tuple[list[int], list[list[float]]]] = []

    def step(batch: Transitions, weight_B: torch.Tensor | None) -> torch.Tensor:
        assert weight_B is not None
        parts = [*batch, weight_B]
        seen.append(([part.data_ptr() for part in parts], [part.flatten().tolist() for part in parts]))
        return batch.return_B * weight_B

    captured = CapturedStep(step, torch.optim.Adam([weight]), lambda: [], Rerun())
    for start in range(WARM_UP_STEPS + 3):
        error_B = captured.take(transitions(float(start)), torch.tensor([1.0, start]))
        assert error_B.tolist() == [start + 10.0, (start + 11.0) * start]
    assert len(seen) == WARM_UP_STEPS + 3
    assert all(addresses == seen[0][0] for addresses, _ in seen)
    assert seen[4][1] == [[4, 5], [4, 5], [14, 15], [24, 25], [34, 35], [1, 4]]
    with pytest.raises(ValueError, match=r"batches of one shape: got \[\(\(3, 1\)"):
        captured.take(transitions(0.0, size=3), torch.ones(3))
    with pytest.raises(ValueError, match="batches of one shape"):
        captured.take(transitions(0.0), None)


def test_what_cannot_be_replayed_is_refused() -> None:
    for options, message in (
        ({"noisy": True}, "what noisy=true draws"),
        ({"augmentation": "drq"}, "what augmentation=drq draws"),
        ({"pruning": {"method": "rigl"}}, "cannot skip steps as pruning.method=rigl"),
    ):
        with pytest.raises(ValidationError, match=message):
            DQNConfig.model_validate({"cuda_graph": True, **options})
    with pytest.raises(ValidationError, match="the fractions that munchausen_iqn draws"):
        IQNConfig(cuda_graph=True, munchausen=True)


def test_networks_on_the_cpu_act_but_learn_from_no_cuda_graph() -> None:
    agent = build("dqn", replayed=True)
    assert agent.learner.captured is not None
    agent.learner.captured.recorder = CudaRecorder()
    assert agent.act(np.zeros((2, 3), np.float32))[0].shape == (2,)
    with pytest.raises(ValueError, match="needs device=cuda: these networks are on device=cpu"):
        update(agent, filled(agent))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pruning", [None, "magnitude", "static"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_cuda_graph_takes_the_steps(name: str, pruning: str | None) -> None:
    replay = ReplayConfig(capacity=64, prioritised=name == "qr_dqn")
    taken, replayed = (
        build(name, replayed=each, pruning=pruning, device="cuda", replay=replay) for each in (False, True)
    )
    replays = filled(taken), filled(replayed)
    for _ in range(STEPS):
        update(taken, replays[0])
        update(replayed, replays[1])
    for key, tensor in taken.weights().items():
        torch.testing.assert_close(replayed.weights()[key], tensor, rtol=1e-3, atol=1e-4)
    assert replayed.metrics() == pytest.approx(taken.metrics(), rel=1e-2)
