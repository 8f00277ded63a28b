from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from envs.atari import ATARI_PRESETS, atari_protocol
from envs.protocols import MAX_SEED, AtariProtocol, Protocol, derive_seeds

DOPAMINE = atari_protocol("dopamine", "pong", "evaluation")


class ToyProtocol(Protocol):
    length: int = 7

    @property
    def max_episode_steps(self) -> int:
        return self.length


def test_hash_is_sha256_of_canonical_json_of_every_field() -> None:
    protocol = ToyProtocol(id="toy", env_name="walk", num_episodes=3, versions={"toy-env": "1.2"})
    canonical = (
        '{"env_name":"walk","evaluation_epsilon":0.0,"evaluation_policy":"greedy","id":"toy",'
        '"length":7,"num_episodes":3,"versions":{"toy-env":"1.2"}}'
    )
    assert protocol.hash == hashlib.sha256(canonical.encode()).hexdigest()[:12]


def test_every_single_field_moves_the_hash() -> None:
    other = {
        "id": "x",
        "env_name": "breakout",
        "num_episodes": 11,
        "evaluation_policy": "sampled",
        "evaluation_epsilon": 0.5,
        "versions": {"ale-py": "0.0"},
        "role": "training",
        "sticky_prob": 0.1,
        "noop_max": 3,
        "fire_reset": True,
        "terminal_on_life_loss": True,
        "full_action_space": True,
        "max_frames": 4,
        "clip_reward": True,
        "frame_skip": 5,
    }
    fixed = {"suite", "screen_size", "stack_num", "stack_padding", "preprocessing"}  # one value allowed
    assert set(other) | fixed == set(AtariProtocol.model_fields)
    hashes = {DOPAMINE.model_copy(update={name: value}).hash for name, value in other.items()}
    assert len(hashes | {DOPAMINE.hash}) == len(other) + 1


def test_a_protocol_survives_json_with_its_hash() -> None:
    again = AtariProtocol.model_validate(json.loads(DOPAMINE.model_dump_json()))
    assert again == DOPAMINE
    assert again.hash == DOPAMINE.hash
    assert hash(again) == hash(DOPAMINE)


def test_versions_of_the_package_are_filled_in() -> None:
    import importlib.metadata

    assert DOPAMINE.versions == {"ale-py": importlib.metadata.version("ale-py")}


@pytest.mark.parametrize("name", ATARI_PRESETS)
def test_presets_differ_and_know_their_role(name: str) -> None:
    training, evaluation = (atari_protocol(name, "pong", role) for role in ("training", "evaluation"))
    assert training.hash != evaluation.hash
    assert not evaluation.clip_reward
    assert not evaluation.terminal_on_life_loss


def test_protocols_are_frozen_and_strict() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DOPAMINE.noop_max = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="nope"):
        ToyProtocol(id="toy", env_name="walk", nope=1)  # type: ignore[call-arg]


def test_derived_seeds_are_distinct_stable_and_in_range() -> None:
    seeds = derive_seeds(0, 5000)
    assert len(set(seeds)) == 5000
    assert min(seeds) >= 1
    assert max(seeds) <= MAX_SEED
    assert seeds[:10] == derive_seeds(0, 10)
    assert not set(seeds) & set(derive_seeds(1, 5000))
    assert derive_seeds(0, 3) == SEEDS_OF_0


SEEDS_OF_0 = [
    1649004058,
    19308716,
    537097021,
]  # a recorded evaluation must stay repeatable: these numbers may never change


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        derive_seeds(-1, 2)


def test_episodes_are_fixed_by_the_seed() -> None:
    episodes = DOPAMINE.episodes(3)
    assert [episode.index for episode in episodes] == list(range(10))
    assert [episode.seed for episode in episodes] == derive_seeds(3, 10)
    assert {(episode.task, episode.goal_index) for episode in episodes} == {("pong", None)}


def test_cap_counts_agent_steps_rounded_up() -> None:
    assert (DOPAMINE.max_frames, DOPAMINE.max_episode_steps, DOPAMINE.frames_per_step) == (108_000, 27_000, 4)
    assert DOPAMINE.changed(max_frames=401).max_episode_steps == 101


def test_changed_fields_show_in_the_id() -> None:
    assert DOPAMINE.changed(sticky_prob=0.25) is DOPAMINE
    changed = DOPAMINE.changed(sticky_prob=0.0, noop_max=30)
    assert changed.id == "dopamine+noop_max+sticky_prob"
    assert changed.changed(max_frames=100, noop_max=20).id == "dopamine+max_frames+noop_max+sticky_prob"
    with pytest.raises(ValidationError, match=r"1\.5"):
        DOPAMINE.changed(sticky_prob=1.5)
    with pytest.raises(ValidationError, match="stickiness"):
        DOPAMINE.changed(stickiness=0.0)


def test_description_is_json() -> None:
    described = json.loads(json.dumps(DOPAMINE.describe()))
    assert described["hash"] == DOPAMINE.hash
    assert described["max_episode_steps"] == 27_000


def test_other_suites_protocols_are_found_here() -> None:
    from envs import protocols

    assert issubclass(protocols.MetaworldProtocol, Protocol)
    assert issubclass(protocols.ClassicProtocol, Protocol)
    with pytest.raises(AttributeError, match="NoProtocol"):
        protocols.NoProtocol  # noqa: B018


def test_configs_and_protocols_import_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'gymnasium', 'tianshou', 'ale_py', 'metaworld', 'mujoco')"
    code = (
        "import sys, envs.protocols; from envs.atari import AtariConfig\n"
        "AtariConfig(game='pong', protocol='dqn_nature').describe()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
