"""Settings that contradict each other are refused by name and value; what `auto` stands for; which preset is which."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from agents.decision_transformer.config import DecisionTransformerConfig

SLOTS = {"kind": "slots"}
TOKENS = {"kind": "tokens"}
INFERRED = {"target": {"kind": "inferred"}}
MDT = {"layout": "mdt", "return_prediction": {}}


def config(**given: Any) -> DecisionTransformerConfig:
    return DecisionTransformerConfig.model_validate(given)


def test_importing_the_config_loads_nothing_heavy() -> None:
    code = (
        "import sys, agents.decision_transformer as dt; dt.DecisionTransformerConfig()\n"
        "print([name for name in ('torch', 'numpy', 'tianshou', 'gymnasium') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_defaults_are_those_of_chen_et_al_for_continuous_control() -> None:
    """Source: Chen et al. 2021, gym/experiment.py."""
    plain = config()
    assert (plain.width, plain.num_layers, plain.num_heads, plain.context_length) == (128, 3, 1, 20)
    assert (plain.dropout, plain.activation, plain.batch_size, plain.max_grad_norm) == (0.1, "relu", 64, 0.25)
    assert (plain.learning_rate, plain.weight_decay, plain.warmup_steps) == (1e-4, 1e-4, 10_000)
    assert plain.return_scale == 1000.0 and plain.memory.kind == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 10, "num_heads": 4}, "width=10 is not a multiple of num_heads=4"),
        ({"width": 10, "memory": {**SLOTS, "num_heads": 4}}, r"width=10 .* memory.num_heads=4"),
        ({"condition_on_return": False, "single_return_token": True}, "single_return_token has no effect"),
        ({"condition_on_return": False, **MDT}, "return_prediction has no effect"),
        ({"return_prediction": {}}, "return_prediction needs layout=mdt"),
        ({**MDT, "memory": {**SLOTS, "chunk": 0}}, "memory.chunk=0 writes"),
        (
            {"reward_prediction": True, "use_reward_tokens": True, "memory": {**SLOTS, "chunk": 0}},
            "memory.chunk=0 writes",
        ),
        ({"context_length": 4, "memory": SLOTS}, "memory.chunk=5 exceeds context_length=4"),
        ({"num_segments": 2, "sampling": "windows"}, "num_segments=2 needs sampling=stream"),
        ({"prompt_steps": 5, "memory": SLOTS}, "prompt_steps=5 needs sampling=windows"),
        ({"random_offset": True}, "random_offset=true has no effect"),
        ({"memory": TOKENS, "acting": {"context": "sliding"}}, "acting.context=sliding cannot write"),
        ({"memory": {**TOKENS, "cached_tokens": 2}, "position": "window"}, "cached_tokens=2 needs position=timestep"),
        ({"acting": {"memory_use": "reset"}}, "acting.memory_use=reset has no effect"),
        ({"acting": INFERRED}, "inferred needs return_prediction"),
        ({**MDT, "acting": INFERRED, "single_return_token": True}, "single_return_token=true hides"),
        ({"return_prediction": {"low": 3.0, "high": 3.0}, "layout": "mdt"}, "low=3.0 must lie below high=3.0"),
        ({"memory": {"kind": "slots", "num_slots": 1}}, "greater than or equal to 2"),
        ({"memory": {"kind": "matrix"}}, "matrix"),
        ({"tokenizer": {"kind": "minatar_patch", "patch_size": 3}}, "patch_size"),
    ],
)
def test_contradictions_are_refused_by_name_and_value(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**given)


@pytest.mark.parametrize(
    ("given", "streams", "context"),
    [
        ({}, False, "sliding"),
        ({"num_segments": 2}, True, "segment"),
        ({"memory": SLOTS}, True, "segment"),
        ({"memory": TOKENS}, True, "segment"),
        ({"sampling": "stream"}, True, "segment"),
        ({"memory": SLOTS, "sampling": "windows"}, False, "segment"),
        ({"num_segments": 2, "acting": {"context": "sliding"}}, True, "sliding"),
    ],
)
def test_sampling_and_context_follow_the_memory(given: dict[str, Any], streams: bool, context: str) -> None:
    assert (config(**given).streams, config(**given).acting_context) == (streams, context)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({}, "decision_transformer"),
        ({"condition_on_return": False}, "behaviour_cloning"),
        ({"memory": SLOTS}, "dt_mem"),
        ({"memory": TOKENS}, "rmdt"),
        ({"prompt_steps": 5}, "prompt_dt"),
        (MDT, "multi_game_dt"),
    ],
)
def test_labels_name_the_method(given: dict[str, Any], label: str) -> None:
    assert config(**given).label == label


def test_return_codec_is_that_of_the_prediction_or_the_sources() -> None:
    assert (config().return_codec.low, config().return_codec.high, config().return_codec.bins) == (-20.0, 100.0, 121)
    own = config(layout="mdt", return_prediction={"low": 0.0, "high": 1.0, "bins": 11})
    assert own.return_codec.bins == 11
