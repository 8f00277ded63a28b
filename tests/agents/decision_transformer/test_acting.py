"""The state of acting: contexts that slide or start anew, rewards, resets; every function leaves its input alone."""

from dataclasses import fields

import pytest
import torch

from agents.decision_transformer.acting import ActingState, at_newest


def fresh(num_rows: int = 2, context_length: int = 3, memory: bool = False) -> ActingState:
    lead = (num_rows, context_length)
    return ActingState(
        obs=torch.zeros(*lead, 1),
        previous_action=torch.zeros(lead, dtype=torch.int64),
        previous_reward=torch.zeros(lead),
        return_to_go=torch.zeros(lead),
        timestep=torch.zeros(lead, dtype=torch.int64),
        count=torch.zeros(num_rows, dtype=torch.int64),
        step=torch.zeros(num_rows, dtype=torch.int64),
        last_action=torch.zeros(num_rows, dtype=torch.int64),
        last_reward=torch.zeros(num_rows),
        target=torch.full((num_rows,), 5.0),
        task=torch.full((num_rows,), -1),
        memory=torch.zeros(num_rows, 1, 1) if memory else None,
    )


def played(state: ActingState, steps: int, *, commit: bool = False) -> ActingState:
    """Steps with observation 10 * row + t + 1, action t, reward 0.5; the memory after a context is its last."""
    for _ in range(steps):
        t = int(state.step[0])
        rows = torch.arange(len(state))
        state = state.appended((10.0 * rows + t + 1).unsqueeze(1)).acted(torch.full((len(state),), t))
        if commit:
            state = state.committed(None if state.memory is None else at_newest(state.obs, state).unsqueeze(1))
        state = state.rewarded(rows, torch.full((len(state),), 0.5), decrement=True)
    return state


def test_steps_fill_the_context_from_the_left() -> None:
    state = played(fresh(), 2)
    assert state.obs[:, :, 0].tolist() == [[1, 2, 0], [11, 12, 0]]
    assert state.previous_action.tolist() == [[0, 0, 0]] * 2 and state.last_action.tolist() == [1, 1]
    assert state.previous_reward.tolist() == [[0, 0.5, 0]] * 2 and state.last_reward.tolist() == [0.5, 0.5]
    assert state.return_to_go.tolist() == [[5, 4.5, 0]] * 2 and state.target.tolist() == [4, 4]
    assert state.timestep.tolist() == [[0, 1, 0]] * 2 and state.step.tolist() == [2, 2]
    inputs = state.inputs()
    assert inputs.valid.tolist() == [[True, True, False]] * 2


def test_a_full_context_slides() -> None:
    state = played(fresh(), 5)
    assert state.obs[:, :, 0].tolist() == [[3, 4, 5], [13, 14, 15]]
    assert state.previous_action.tolist() == [[1, 2, 3]] * 2
    assert state.return_to_go.tolist() == [[4, 3.5, 3]] * 2
    assert state.timestep.tolist() == [[2, 3, 4]] * 2
    assert state.inputs().valid.all()


def test_a_full_segment_starts_anew_from_what_it_left_behind() -> None:
    state = played(fresh(memory=True), 3, commit=True)
    assert state.count.tolist() == [0, 0] and state.memory is not None
    assert state.memory[:, 0, 0].tolist() == [3, 13]
    state = played(state, 2, commit=True)
    assert state.count.tolist() == [2, 2] and state.obs[:, :2, 0].tolist() == [[4, 5], [14, 15]]
    assert state.timestep[:, :2].tolist() == [[3, 4]] * 2 and state.previous_action[:, :2].tolist() == [[2, 3]] * 2
    assert state.memory is not None and state.memory[:, 0, 0].tolist() == [3, 13]


def test_only_full_rows_take_over_the_memory() -> None:
    state = played(fresh(memory=True), 2, commit=True)
    state = state.restarted(torch.tensor([1]), torch.tensor([9.0]), torch.tensor([0]), torch.tensor([[[7.0]]]))
    state = played(state, 1, commit=True)
    assert state.count.tolist() == [0, 1]
    assert state.memory is not None and state.memory[:, 0, 0].tolist() == [3, 7]


def test_a_restart_forgets_its_rows_and_nothing_else() -> None:
    state = played(fresh(3, memory=True), 4, commit=True)
    kept = {field.name: getattr(state, field.name).clone() for field in fields(state)}
    again = state.restarted(torch.tensor([1]), torch.tensor([9.0]), torch.tensor([1]), torch.tensor([[[7.0]]]))
    for name, before in kept.items():
        assert torch.equal(getattr(state, name), before), f"{name} of the old state was changed"
        after = getattr(again, name)
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        expected = {"target": 9.0, "task": 1, "memory": 7.0}.get(name, 0)
        assert (after[1] == expected).all(), name


def test_missing_rewards_ask_for_the_same_return_until_they_come() -> None:
    state = fresh().appended(torch.zeros(2, 1))
    state = state.rewarded(torch.tensor([0, 1]), torch.tensor([float("nan"), 1.0]), decrement=True)
    assert state.target.tolist() == [5, 4] and state.last_reward.tolist() == [0, 1]
    state = state.appended(torch.zeros(2, 1)).rewarded(torch.tensor([0]), torch.tensor([3.0]), decrement=True)
    assert state.target.tolist() == [2, 4] and state.last_reward.tolist() == [3, 0]
    state = state.rewarded(torch.tensor([1]), torch.tensor([1.0]), decrement=False)
    assert state.target.tolist() == [2, 4] and state.last_reward.tolist() == [3, 1]


def test_another_return_can_be_asked_for_at_the_newest_step() -> None:
    state = played(fresh(), 2).asking(torch.tensor([8.0, 9.0]))
    assert state.return_to_go.tolist() == [[5, 8, 0], [5, 9, 0]]


def test_it_shows_shapes_and_no_data() -> None:
    assert "obs=[2, 3, 1]" in repr(fresh()) and "memory" not in repr(fresh())
    assert "memory=[2, 1, 1]" in repr(fresh(memory=True)) and len(fresh()) == 2


@pytest.mark.parametrize("method", ["appended", "acted", "asking"])
def test_nothing_changes_in_place(method: str) -> None:
    state = played(fresh(), 2)
    kept = {field.name: getattr(state, field.name) for field in fields(state)}
    copies = {name: None if tensor is None else tensor.clone() for name, tensor in kept.items()}
    argument = {"appended": torch.ones(2, 1), "acted": torch.tensor([7, 7]), "asking": torch.tensor([1.0, 2.0])}
    getattr(state, method)(argument[method])
    assert all(tensor is None or torch.equal(tensor, kept[name]) for name, tensor in copies.items())
