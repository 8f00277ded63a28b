"""The config of a training run: what Hydra composes, checked by pydantic before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator

from agents import AgentConfig
from envs import EnvConfig
from envs.base import Strict
from sextant.compatibility import contradictions
from sextant.overrides import compose_data
from sextant.refusal import ConfigError, refusal
from sextant.schema import completed
from trainers.config import TrainerConfig
from trainers.offline_config import OfflineTrainerConfig

__all__ = [
    "ConfigError",
    "TrainConfig",
    "compose_train_config",
    "config_yaml",
    "load_run_config",
    "save_run_config",
    "validated",
]

CONFIG_FILE = "config.yaml"
LENIENT = "lenient"  # key of the validation context

Model = TypeVar("Model", bound=BaseModel)


class TrainConfig(Strict):
    """Everything that decides what a training run computes, and where it is kept."""

    agent: AgentConfig = Field(description="What learns; presets in configs/agent.")
    env: EnvConfig = Field(description="What it acts in; presets in configs/env.")
    trainer: Annotated[TrainerConfig | OfflineTrainerConfig, Field(discriminator="name")] = Field(
        description="Online or offline, how long, and how often to evaluate and checkpoint; presets in configs/trainer."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="The one seed all randomness of the run is derived from (no unit).",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where the networks live; auto is cuda where there is one. Only cpu is bit-exact.",
    )
    threads: int | Literal["auto"] = Field(
        "auto",
        description="CPU threads of PyTorch (unit: threads); auto takes the fastest in a short measurement.",
    )
    resume: Literal["never", "auto"] = Field(
        "never",
        description="auto goes on with the newest unfinished run of the same config; never starts afresh.",
    )
    runs_dir: Path = Field(
        Path("runs"), description="Folder under which run directories are made (path; relative to where you are)."
    )

    @model_validator(mode="after")
    def _must_not_contradict(self, info: ValidationInfo) -> Self:
        if not self.threads == "auto" and self.threads < 1:
            raise ValueError(f"threads={self.threads}: expected auto or int >= 1")
        if self.device == "cpu" and getattr(self.agent, "cuda_graph", False):
            raise ValueError("agent.cuda_graph=true needs device=cuda, not device=cpu")
        lenient = bool(info.context and info.context.get(LENIENT))
        found = [] if lenient else contradictions(self.agent, self.env, self.trainer)
        if found:
            raise ValueError("; ".join(found))
        return self


def compose_train_config(overrides: Sequence[str], *, lenient: bool = False) -> TrainConfig:
    """Composes and checks the config that a command line asks for.

    Args:
        overrides: Hydra overrides, such as ``agent=dqn`` or ``env.game=pong``.
        lenient: whether agent and env may contradict each other (to look at either alone; such a config cannot be run).

    Raises:
        ConfigError: for anything that cannot be run, naming the key, the value and what is allowed.
    """
    return validated(TrainConfig, compose_data(overrides), lenient=lenient)


def validated(model: type[Model], data: Mapping[str, Any], *, lenient: bool = False) -> Model:
    """Checks plain data against a config class; values are taken as they are, not converted between types.

    Args:
        model: the class.
        data: the values.
        lenient: as in :func:`compose_train_config`.

    Raises:
        ConfigError: listing every refused key.
    """
    full = completed(model, _whole_numbers_as_int(data))
    try:
        return model.model_validate_json(json.dumps(full), strict=True, context={LENIENT: lenient})
    except ValidationError as error:
        raise refusal(model, full, error) from error


def config_yaml(config: BaseModel) -> str:
    """Gives a config as plain YAML, every key written out."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def save_run_config(config: TrainConfig, run_dir: Path) -> Path:
    """Writes the fully resolved config of a run as plain YAML and gives the file's path."""
    path = run_dir / CONFIG_FILE
    from trainers.run_log import write_atomically

    write_atomically(path, config_yaml(config))
    return path


def load_run_config(run_dir: Path) -> TrainConfig:
    """Reads the config of a run directory back.

    Raises:
        ConfigError: if there is no readable config, or it is not one this version can run.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = Path(run_dir) / CONFIG_FILE
    try:
        data = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise ConfigError(f"{run_dir} is not a run directory: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        why = " ".join(str(error).split())
        raise ConfigError(
            f"{path} cannot be read: {why}; put a copy back (TensorBoard shows the config on the run's Text page)"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} does not hold a config")
    try:
        return validated(TrainConfig, {str(key): value for key, value in data.items()})
    except ConfigError as error:
        raise ConfigError(f"{path} was refused: {error}") from error


def _whole_numbers_as_int(value: Any) -> Any:
    """Turns 1e6 into 1000000, so that a whole number may be written either way."""
    if isinstance(value, Mapping):
        return {str(key): _whole_numbers_as_int(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers_as_int(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
