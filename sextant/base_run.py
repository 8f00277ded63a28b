"""What an adapted run takes from its base, the run whose model it goes on with: weights, scales, targets.

All of it is taken once, before the first gradient step, and is part of the first checkpoint: from then on the base is
not needed. Until then it must be there, with the very weights that the config names by their sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.refusal import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from agents.decision_transformer.adaptation_config import AdaptationConfig
    from memory.data_summary import DataSummary
    from sextant.config import TrainConfig

REPORT_FILE = "adaptation.json"
WEIGHTS_FILE = "weights.safetensors"
_MODEL = "policy.model."


def adaptation_of(config: TrainConfig) -> AdaptationConfig | None:
    """Gives what a run's config says of its adaptation; None for a run that is none."""
    return getattr(config.agent, "adaptation", None)


def tasks_of(config: TrainConfig) -> tuple[str, ...]:
    """Gives the tasks that an offline run is restricted to; none for all of its data."""
    return () if config.trainer.name == "online" else config.trainer.tasks or ()


def base_of(config: TrainConfig) -> Path | None:
    """Gives the run whose weights a run starts from; None for new weights."""
    adaptation = adaptation_of(config)
    if adaptation is None or adaptation.base is None or adaptation.method == "scratch":
        return None
    return Path(adaptation.base)


def base_record(config: TrainConfig) -> dict[str, Any]:
    """Gives what ``provenance.json`` says of an adaptation: base, weights, and which demonstrations."""
    adaptation, trainer = adaptation_of(config), config.trainer
    if adaptation is None or trainer.name != "offline":
        return {}
    count = "all" if trainer.episodes_per_task is None else f"the first {trainer.episodes_per_task}"
    return {
        "adaptation": {
            "base": adaptation.base,
            "base_digest": adaptation.base_digest,
            "tasks": trainer.tasks,
            "episodes_per_task": f"{count} of each task, in the order of their files",
        }
    }


def adapted_summary(config: TrainConfig, run_dir: Path, own: DataSummary) -> DataSummary:
    """Gives what the agent of a run has to know of its data, which an adapted run knows in part from its base.

    Args:
        config: of the run.
        run_dir: where its ``data.json`` lies once it has started.
        own: of the data of the run.
    Raises:
        ConfigError: if the base is needed and not there, or only one of both had its rewards clipped.
    """
    from sextant.config import load_run_config
    from sextant.offline_learner import SUMMARY_FILE, load_data_summary

    def clips(each: TrainConfig, data: DataSummary) -> bool:
        return data.reward_clip or bool(getattr(each.agent, "reward_clip", False))

    base = base_of(config)
    if base is None:
        return own
    if (run_dir / SUMMARY_FILE).exists():
        return load_data_summary(run_dir)
    if not (base / "config.yaml").exists():
        raise ConfigError(
            f"agent.adaptation.base={base} is not a run directory: a run without a checkpoint starts from its weights"
        )
    known, base_config = load_data_summary(base), load_run_config(base)
    theirs, ours = (clips(each, data) for each, data in ((base_config, known), (config, own)))
    if theirs != ours:
        raise ConfigError(
            f"rewards were {'' if theirs else 'not '}clipped for {base}, and {'are' if ours else 'are not'} "
            f"in this data: set agent.reward_clip={str(theirs).lower()}, or use data collected alike"
        )
    return merged_summary(known, own)


def merged_summary(base: DataSummary, own: DataSummary) -> DataSummary:
    """Puts what is known of the base's data before what is known of the data adapted to.

    The scales of observations are the base's: they belong to its weights. So are the returns of the tasks it knows; of
    new tasks they are those of the data adapted to, whose tasks come first, in their order.

    Args:
        base: of the base.
        own: of the data adapted to.
    """
    return replace(
        own,
        tasks=(*own.tasks, *(task for task in base.tasks if task not in own.tasks)),
        obs_mean=base.obs_mean,
        obs_std=base.obs_std,
        max_length=max(base.max_length, own.max_length),
        return_quantiles={**own.return_quantiles, **base.return_quantiles},
        max_abs_reward=max(base.max_abs_reward, own.max_abs_reward),
    )


def start_from_base(config: TrainConfig, agent: Any, run_dir: Path | None, say: Callable[[str], None]) -> None:
    """Gives a newly built agent its base's weights, and tells what of it will be trained; nothing for other runs.

    Args:
        config: of the run.
        agent: as built; changed in place.
        run_dir: where ``adaptation.json`` is written; None in processes that write nothing.
        say: told the report.
    Raises:
        ConfigError: if the base is not there, or no longer holds the weights.
        ValueError: if its weights do not fit the agent.
    """
    adaptation = adaptation_of(config)
    if adaptation is None:
        return
    base, facts = base_of(config), dict[str, Any]()
    if base is not None:
        weights, facts["base_gradient_steps"] = find_weights(base, adaptation.base_digest)
        known = _take(agent, config, base, weights)
        facts |= {"known_tasks": [task for task in agent.data.tasks if task in known]}
        facts |= {"new_tasks": [task for task in agent.data.tasks if task not in known]}
    report = {**adaptation.model_dump(mode="json"), **facts, **counted(agent.model)}
    report |= {"episodes": agent.data.num_episodes, "env_steps": agent.data.num_steps}
    if run_dir is not None:
        from trainers.run_log import write_atomically

        write_atomically(run_dir / REPORT_FILE, json.dumps(report, indent=1) + "\n")
    for line in report_lines(report):
        say(line)


def find_weights(base: Path, digest: str | None) -> tuple[dict[str, Tensor], int]:
    """Reads the weights of a run that have a digest, whichever of its checkpoints they are in.

    Returns:
        the weights, and the gradient steps they had been trained for.
    Raises:
        ConfigError: if no checkpoint holds them.
    """
    from trainers.checkpoint_contents import unpack_weights

    if digest is None:
        raise ConfigError("agent.adaptation.base_digest is missing: start adaptations with `sextant adapt`")
    folders = [path for pattern in ("[0-9]*[0-9]", "best/[0-9]*[0-9]") for path in base.glob(f"checkpoints/{pattern}")]
    for folder in folders:
        content = (folder / WEIGHTS_FILE).read_bytes() if (folder / WEIGHTS_FILE).exists() else b""
        if hashlib.sha256(content).hexdigest() == digest:
            steps = int(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["env_steps"])
            return unpack_weights(content), steps
    raise ConfigError(
        f"agent.adaptation.base={base} holds no weights with sha256 {digest[:16]}... (agent.adaptation.base_digest) in "
        f"its {len(folders)} checkpoints: they were removed, changed, or trained on; run `sextant adapt` anew"
    )


def _take(agent: Any, config: TrainConfig, base: Path, weights: dict[str, Tensor]) -> tuple[str, ...]:
    """Copies the model's weights, and what is kept for each task that the base knows; gives these tasks."""
    from agents.decision_transformer.adaptation import load_base_weights
    from sextant.offline_learner import load_data_summary

    known = load_data_summary(base).tasks
    weights = _without_other_lora(agent, config, base, weights)
    parameters = {name.removeprefix(_MODEL): each for name, each in weights.items() if name.startswith(_MODEL)}
    load_base_weights(agent.model, parameters)
    for name, table in agent.weights().items():
        if not name.startswith(_MODEL):
            _copy_rows(table, weights[name], agent.data.tasks, known)
    return known


def _copy_rows(table: Tensor, source: Tensor, tasks: Sequence[str], known: Sequence[str]) -> None:
    """Copies the rows of known tasks, and the last one, of unknown tasks, to their places in a table, in place."""
    for place, task in enumerate(tasks):
        if task in known:
            table[place] = source[known.index(task)]
    table[-1] = source[-1]


def _without_other_lora(agent: Any, config: TrainConfig, base: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Folds the low-rank additions of a base into its weights, unless the run goes on training the very same ones."""
    from agents.decision_transformer.lora import fold_
    from sextant.config import load_run_config
    from sextant.learner import build_agent
    from sextant.offline_learner import load_data_summary
    from trainers.seeding import Seeds

    base_config = load_run_config(base)
    theirs, own = adaptation_of(base_config), adaptation_of(config)
    assert own is not None
    if theirs is None or theirs.method != "lora":
        return weights
    if (own.method, own.where, own.rank, own.alpha) == (theirs.method, theirs.where, theirs.rank, theirs.alpha):
        return weights
    spaces = (agent.observation_space, agent.action_space)
    whole: Any = build_agent(base_config, spaces, Seeds(base_config.seed), device="cpu", data=load_data_summary(base))
    whole.load_weights(weights)
    fold_(whole.model)
    return whole.weights()


def counted(model: nn.Module) -> dict[str, Any]:
    """Counts what is trained of a model, and all there is, in total and by part; names the tensors that are trained.

    Args:
        model: with `embedding`, `backbone`, `memory` and `heads`; bottlenecks in the backbone are a part of their own.
    """
    from agents.decision_transformer.sizes import part_of

    parts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        entry = parts.setdefault(part_of(name), {"trainable": 0, "total": 0})
        entry["total"] += parameter.numel()
        entry["trainable"] += parameter.numel() * parameter.requires_grad
    return {
        "trainable": sum(entry["trainable"] for entry in parts.values()),
        "total": sum(entry["total"] for entry in parts.values()),
        "parts": parts,
        "trained_tensors": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
    }


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Gives the report of an adaptation as text, a line for each part of the model."""
    what = report["method"]
    if what == "lora":
        what = f"lora on {report['where']}, rank {report['rank']}, alpha {report['alpha']:g}"
    start = "new weights" if "base_gradient_steps" not in report else f"{report['base']}"
    if "base_gradient_steps" in report:
        start += f" after {report['base_gradient_steps']:,} gradient steps"
    lines = [
        f"adaptation: {what}, from {start}, to {report['episodes']:,} episodes ({report['env_steps']:,} env steps)",
        f"{'part':<12}{'trainable':>14}{'total':>14}",
    ]
    rows = [*report["parts"].items(), ("all", report)]
    lines += [f"{name:<12}{row['trainable']:>14,}{row['total']:>14,}" for name, row in rows]
    if report.get("new_tasks"):
        lines.append(f"returns to ask for are those of the new data for {', '.join(report['new_tasks'])}")
    return lines
