from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from sextant.refusal import refusal
from sextant.schema import allowed_text, completed, keys, nearest_key, plain


class Cnn(BaseModel, extra="forbid"):
    kind: Literal["cnn"] = "cnn"
    width: int = Field(1, ge=1, le=16, description="Channels.")


class Mlp(BaseModel, extra="forbid"):
    kind: Literal["mlp"] = "mlp"
    widths: tuple[int, ...] = (256, 256)


class Replay(BaseModel, extra="forbid"):
    capacity: int = Field(100, ge=1)
    prioritised: bool = False


class Agent(BaseModel, extra="forbid"):
    name: Literal["agent"] = "agent"
    network: Annotated[Cnn | Mlp, Field(discriminator="kind")] = Cnn(width=4)
    replay: Replay = Replay(capacity=7)
    learning_rate: float = Field(1e-3, gt=0, description="Step size.")


class Other(BaseModel, extra="forbid"):
    name: Literal["other"] = "other"


class Top(BaseModel, extra="forbid"):
    agent: Annotated[Agent | Other, Field(discriminator="name")]
    threads: int | Literal["auto"] = "auto"
    folder: Path = Path("runs")


def message(data):
    full = completed(Top, data)
    with pytest.raises(ValidationError) as caught:
        Top.model_validate(full)
    return str(refusal(Top, full, caught.value))


def test_keys_follow_the_chosen_members():
    found = {key.path: key for key in keys(Top, {"agent": {"name": "agent"}})}
    assert [path for path in found if path.startswith("agent.network.")] == [
        "agent.network.kind",
        "agent.network.width",
    ]
    assert found["agent.network.width"].value == 4
    assert found["agent.network.width"].default == 1
    assert found["agent.learning_rate"].description == "Step size."
    assert found["agent.replay"].is_group
    assert [key.path for key in keys(Top, {"agent": {"name": "other"}})] == ["threads", "folder", "agent", "agent.name"]


def test_partly_given_group_keeps_the_parents_defaults():
    given = {"agent": {"name": "agent", "replay": {"prioritised": True}, "network": {"width": 2}}}
    agent = Top.model_validate(completed(Top, given)).agent
    assert isinstance(agent, Agent)
    assert agent.replay == Replay(capacity=7, prioritised=True)
    assert agent.network == Cnn(width=2)


def test_another_member_takes_nothing_from_the_default_one():
    agent = Top.model_validate(completed(Top, {"agent": {"name": "agent", "network": {"kind": "mlp"}}})).agent
    assert isinstance(agent, Agent)
    assert agent.network == Mlp()


def test_completing_changes_nothing_given():
    given = {"agent": {"name": "agent", "replay": {"prioritised": True}}}
    completed(Top, given)
    assert given == {"agent": {"name": "agent", "replay": {"prioritised": True}}}


def test_allowed_text():
    assert allowed_text(Cnn.model_fields["width"]) == "int >= 1, <= 16"
    assert allowed_text(Agent.model_fields["learning_rate"]) == "float > 0"
    assert allowed_text(Top.model_fields["threads"]) == "int or auto"
    assert allowed_text(Top.model_fields["folder"]) == "path"
    assert allowed_text(Mlp.model_fields["widths"]) == "list of int"
    assert allowed_text(Agent.model_fields["network"]) == "cnn or mlp"
    assert allowed_text(Replay.model_fields["prioritised"]) == "true|false"


def test_nearest_key():
    known = ["agent", "agent.learning_rate", "env.game", "env.num_envs", "trainer.total_env_steps"]
    assert nearest_key("agent.lerning_rate", known) == "agent.learning_rate"
    assert nearest_key("game", known) == "env.game"
    assert nearest_key("agnt.learning_rate", known) == "agent.learning_rate"
    assert nearest_key("xyzzy", known) is None


def test_plain_is_what_one_types():
    assert plain(None) == "null"
    assert plain(True) == "true"
    assert plain((1, 2.5, "a")) == "[1,2.5,a]"
    assert plain({"a": None}) == "{a: null}"


def test_unknown_key_names_the_nearest():
    assert message({"agent": {"name": "agent", "lerning_rate": 1}}) == (
        "unknown key agent.lerning_rate=1: did you mean agent.learning_rate?"
    )


def test_unknown_key_without_a_near_one_lists_the_siblings():
    assert message({"agent": {"name": "agent", "xyzzy": 1}}) == (
        "unknown key agent.xyzzy=1: the keys of agent are name, learning_rate, network, replay"
    )


def test_errors_are_told_against_the_chosen_member_only():
    text = message({"agent": {"name": "agent", "network": {"kind": "mlp", "widhts": 2}}})
    assert text == "unknown key agent.network.widhts=2: did you mean agent.network.widths?"


def test_key_of_another_member_is_told_with_the_choice_that_has_it():
    text = message({"agent": {"name": "agent", "network": {"kind": "mlp", "width": 2}}})
    assert text == "unknown key agent.network.width=2: only there with agent.network.kind=cnn"
    assert (
        message({"agent": {"name": "other", "replay": 2}}) == "unknown key agent.replay=2: only there with agent=agent"
    )


def test_out_of_range_names_value_range_and_meaning():
    text = message({"agent": {"name": "agent", "network": {"width": 99}}})
    assert text == "agent.network.width=99 is not allowed: expected int >= 1, <= 16 (Channels.)"


def test_alternatives_of_a_plain_value_are_one_line():
    assert (
        message({"agent": {"name": "other"}, "threads": "many"}) == "threads=many is not allowed: expected int or auto"
    )


def test_unknown_member_lists_the_members():
    assert message({"agent": {"name": "sarsa"}}).endswith("is not allowed: expected agent or other")


def test_missing_key():
    assert message({}) == "missing key agent: expected agent or other"


def test_every_wrong_key_is_told_once():
    text = message({"agent": {"name": "agent", "a_typo": 1, "learning_rate": -1}, "threads": "x"})
    assert len(text.splitlines()) == 3
