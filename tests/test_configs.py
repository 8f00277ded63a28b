"""Every preset composes, every key is described, and YAML holds only what differs from the defaults."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from envs.base import Strict
from sextant.checkout import CONFIGS
from sextant.config import TrainConfig, compose_train_config, load_run_config, save_run_config
from sextant.overrides import groups, options
from sextant.schema import default_of, member_for, models_of

AGENTS, ENVS, EXPERIMENTS = options("agent"), options("env"), options("experiment")


def config_classes(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Gives a config class and every config class below it, each once."""
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for member in models_of(field):
            yield from config_classes(member, seen)


CLASSES = sorted(config_classes(TrainConfig, set()), key=lambda model: model.__name__)
FIELDS = [(model, name) for model in CLASSES for name in model.model_fields]


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=[f"{model.__name__}.{name}" for model, name in FIELDS])
def test_every_key_has_a_description(model, name):
    if name not in ("name", "kind"):
        assert (model.model_fields[name].description or "").strip(), f"{model.__name__}.{name} has no description"


@pytest.mark.parametrize("model", CLASSES, ids=lambda model: model.__name__)
def test_every_config_class_is_frozen_and_refuses_unknown_keys(model):
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == "forbid"


def env_for(agent: str) -> list[str]:
    """Gives overrides under which an agent preset has an env that suits it."""
    for env in ENVS:
        for trainer in ([], ["trainer=offline", "trainer.data=[x]"]):
            try:
                compose_train_config([f"agent={agent}", f"env={env}", *trainer])
            except ValueError:
                continue
            return [f"agent={agent}", f"env={env}", *trainer]
    raise AssertionError(f"no env preset suits agent={agent}")


@pytest.mark.parametrize("agent", AGENTS)
def test_agent_preset_composes_and_survives_a_round_trip(agent, tmp_path):
    config = compose_train_config(env_for(agent))
    save_run_config(config, tmp_path)
    assert load_run_config(tmp_path) == config


@pytest.mark.parametrize("env", ENVS)
def test_env_preset_suits_some_agent(env):
    def composes(agent: str, *trainer: str) -> bool:
        try:
            return isinstance(compose_train_config([f"agent={agent}", f"env={env}", *trainer]), TrainConfig)
        except ValueError:
            return False

    assert any(composes(agent) or composes(agent, "trainer=offline", "trainer.data=[x]") for agent in AGENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes(experiment):
    assert compose_train_config([f"experiment={experiment}"])
    assert compose_train_config([f"+experiment={experiment}"]) == compose_train_config([f"experiment={experiment}"])


def test_defaults_compose():
    assert compose_train_config([]) == compose_train_config(["agent=dqn", "env=atari", "trainer=online"])


PRESETS = [(group, name) for group in groups() if group != "experiment" for name in options(group)]


@pytest.mark.parametrize(("group", "name"), PRESETS, ids=[f"{group}={name}" for group, name in PRESETS])
def test_preset_holds_only_what_differs_from_the_defaults(group, name):
    data = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{name}.yaml"))
    assert isinstance(data, dict)
    assert_differs(TrainConfig.model_fields[group], data, Strict, f"{group}={name}")


def assert_differs(field: FieldInfo, data: Mapping[Any, Any], default: Any, where: str) -> None:
    member = member_for(field, data)
    assert member is not None, f"{where} names no config class"
    for key, value in data.items():
        below = member.model_fields[key]
        if isinstance(value, Mapping):
            assert_differs(below, value, default_of(below), f"{where} {key}")
        elif key not in ("name", "kind"):
            usual = getattr(default, key) if isinstance(default, member) else default_of(below)
            given = tuple(value) if isinstance(value, list) else value
            assert given != usual, f"{where}: {key}={value} is the default already"


def test_no_preset_names_code():
    for path in CONFIGS.rglob("*.yaml"):
        assert "_target_" not in path.read_text(), f"{path} names something to import"
