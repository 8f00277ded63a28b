"""``sextant export``: sparse files that read back to the same tensors, and ONNX files that give the same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sextant.cli import main
from sextant.config import ConfigError, compose_train_config, save_run_config
from sextant.evaluate import build_acting_agent
from sextant.export import acting_weights, run_export
from sextant.export_sparse import load_sparse, save_sparse, sparse_metadata
from sextant.run_dirs import RunError
from trainers.checkpointing import CheckpointStore

COMMON = ("threads=1", "device=cpu", "seed=5")
CATCH = ("agent=dqn", "env=classic", "env.id=pixel-catch-v0", *COMMON)
CARTPOLE = ("agent=dqn_classic", "env=classic", *COMMON)


def build(overrides: tuple[str, ...]) -> tuple[Any, Any]:
    config: Any = compose_train_config(list(overrides))
    return config, build_acting_agent(config, config.env.evaluation_protocol(), "cpu")


def pruned(weights: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Gives weights of which a share, the smallest of each tensor, is 0, as after magnitude pruning."""
    result = {}
    for name, tensor in weights.items():
        result[name] = tensor.clone()
        if tensor.ndim > 1:
            smallest = tensor.abs().flatten().argsort()[: int(sparsity * tensor.numel())]
            result[name] = result[name].reshape(-1).scatter(0, smallest, 0.0).reshape(tensor.shape)
    return result


def make_run(root: Path, overrides: tuple[str, ...], sparsity: float) -> Path:
    """Gives a run with one checkpoint of freshly initialised weights, pruned."""
    config, agent = build(overrides)
    run_dir = root / config.env.env_id / "5-20260101-000000"
    run_dir.mkdir(parents=True)
    save_run_config(config, run_dir)
    store = CheckpointStore(run_dir / "checkpoints")
    weights = pruned(agent.weights(), sparsity)
    store.save(index=1, env_steps=1000, weights=weights, optimizer={}, counters={}, arrays={})
    return run_dir


@pytest.fixture(scope="module")
def catch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), CATCH, 0.95)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line, some hundred steps long."""
    runs = tmp_path_factory.mktemp("runs")
    settings = ("agent.learning_starts=64", "agent.replay.capacity=500", "env.num_envs=4", f"runs_dir={runs}")
    periods = [f"trainer.{what}_every_env_steps=160" for what in ("evaluate", "checkpoint")]
    length = ("trainer.total_env_steps=320", "trainer.evaluation_episodes=2")
    assert main(["train", *CARTPOLE, *settings, *periods, *length]) == 0
    [run_dir] = runs.glob("*/*")
    return run_dir


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# The sparse file


def test_a_matrix_becomes_compressed_rows(tmp_path: Path) -> None:
    weight = torch.zeros(3, 8)
    weight[0, 5], weight[2, 1], weight[2, 7] = 2.0, -1.0, 0.5
    [size] = save_sparse(tmp_path / "file", {"w": weight})
    parts = safetensors.torch.load_file(tmp_path / "file")
    assert {name: part.tolist() for name, part in parts.items()} == {
        "w.csr.values": [2.0, -1.0, 0.5],
        "w.csr.columns": [5, 1, 7],
        "w.csr.rows": [0, 1, 1, 3],
    }
    assert parts["w.csr.columns"].dtype == parts["w.csr.rows"].dtype == torch.int32
    assert (size.layout, size.kept, size.dense_bytes, size.written_bytes) == ("csr", 3, 96, 3 * 4 + 3 * 4 + 4 * 4)


def test_a_convolution_becomes_values_and_bits(tmp_path: Path) -> None:
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 1], weight[0, 0, 2, 2] = 2.0, -1.0
    [size] = save_sparse(tmp_path / "file", {"w": weight})
    parts = safetensors.torch.load_file(tmp_path / "file")
    assert {name: part.tolist() for name, part in parts.items()} == {
        "w.mask.values": [2.0, -1.0],
        "w.mask.bits": [0b01000000, 0b10000000],
    }
    assert (size.layout, size.kept, size.dense_bytes, size.written_bytes) == ("mask", 2, 36, 2 * 4 + 2)


def test_what_would_grow_is_kept_as_it_is(tmp_path: Path) -> None:
    weights = {"half": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(64), "full": torch.ones(1, 2, 3, 3)}
    sizes = save_sparse(tmp_path / "file", weights)
    assert [size.layout for size in sizes] == ["dense"] * 3
    assert all(size.dense_bytes == size.written_bytes for size in sizes)
    assert safetensors.torch.load_file(tmp_path / "file").keys() == weights.keys()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_everything_reads_back_bit_for_bit(tmp_path: Path, sparsity: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "linear": torch.randn(40, 70, generator=generator),
        "linear.bias": torch.randn(40, generator=generator),
        "conv": torch.randn(16, 5, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last),
        "conv1d": torch.randn(6, 5, 3, generator=generator),
    }
    weights = {name: tensor.to(dtype) for name, tensor in pruned(weights, sparsity).items()}
    weights["linear"][3, 4] = torch.nan
    weights["conv"][0, 0, 0, 0] = torch.inf
    everything = weights | {"steps": torch.tensor(3), "grid": torch.zeros(9, 9, dtype=torch.int64)}
    sizes = save_sparse(tmp_path / "file", everything)
    assert sum(size.written_bytes for size in sizes) <= sum(size.dense_bytes for size in sizes)
    restored = load_sparse(tmp_path / "file")
    assert list(restored) == list(everything)
    for name, tensor in everything.items():
        assert (restored[name].dtype, restored[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(restored[name]) == bits(tensor), name


def test_a_pruned_weight_is_zero_whatever_its_sign(tmp_path: Path) -> None:
    weight = torch.full((4, 32), -0.0)
    weight[1, 1] = -3.0
    [size] = save_sparse(tmp_path / "file", {"w": weight})
    restored = load_sparse(tmp_path / "file")["w"]
    assert size.kept == 1 and torch.equal(restored, weight)
    assert not torch.signbit(restored[0]).any()


def test_the_file_is_read_without_our_code(tmp_path: Path) -> None:
    weight = pruned({"w": torch.randn(30, 50)}, 0.95)["w"]
    save_sparse(tmp_path / "file", {"w": weight}, run="a/b")
    with safetensors.safe_open(tmp_path / "file", framework="np") as file:
        header = json.loads(file.metadata()["sextant"])
        rows, columns, values = (file.get_tensor(f"w.csr.{part}") for part in ("rows", "columns", "values"))
    assert header["format"] == "sextant-sparse-1" and header["run"] == "a/b"
    from scipy.sparse import csr_array

    dense = csr_array((values, columns, rows), shape=header["tensors"]["w"]["shape"]).toarray()
    np.testing.assert_array_equal(dense, weight.numpy())


def test_names_that_would_meet_are_refused(tmp_path: Path) -> None:
    weights = {"w.csr.values": torch.ones(2), "w": torch.zeros(9, 9)}
    with pytest.raises(ValueError, match=r"two tensors would be written as 'w\.csr\.values'"):
        save_sparse(tmp_path / "file", weights)
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "plain")
    for name in ("text", "plain"):
        with pytest.raises(ValueError, match=rf"{name} was not written by `sextant export --sparse`"):
            load_sparse(tmp_path / name)
    header = {"format": "sextant-sparse-9", "tensors": {}}
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "later", {"sextant": json.dumps(header)})
    with pytest.raises(ValueError, match="later has format 'sextant-sparse-9', expected 'sextant-sparse-1'"):
        load_sparse(tmp_path / "later")
    header = {"format": "sextant-sparse-1", "tensors": {"v": {"layout": "csr", "shape": [3, 3]}}}
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "cut", {"sextant": json.dumps(header)})
    with pytest.raises(ValueError, match=r"cut is damaged: 'v\.csr\.values'"):
        load_sparse(tmp_path / "cut")


# The command


def test_a_trained_run_is_exported_by_the_command(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", f"run={trained}", "--sparse"]) == 0
    file = trained / "exports" / "last-000000320" / "network.sparse.safetensors"
    assert str(file) in capsys.readouterr().out.replace("\n", "")
    snapshot = CheckpointStore(trained / "checkpoints", read_only=True).load_latest()
    assert snapshot is not None
    restored = load_sparse(file)
    assert restored.keys() == {name for name in snapshot.weights if name.startswith("policy.")}
    assert all(bits(tensor) == bits(snapshot.weights[name]) for name, tensor in restored.items())
    header = sparse_metadata(file)
    assert (header["run"], header["checkpoint"], header["env_steps"]) == ("/".join(trained.parts[-2:]), "last", "320")


def test_the_best_checkpoint_and_another_folder(trained: Path, tmp_path: Path) -> None:
    exported = run_export(trained, checkpoint="best", out=tmp_path / "new" / "folder", sparse=True)
    assert exported.directory == tmp_path / "new" / "folder" and exported.onnx_difference is None
    assert sparse_metadata(exported.directory / "network.sparse.safetensors")["checkpoint"] == "best"


def test_a_pruned_run_takes_the_bytes_its_table_says(
    catch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = run_export(catch, out=tmp_path, sparse=True)
    assert exported.sizes is not None
    layouts = {size.name.split(".")[-2]: size.layout for size in exported.sizes if len(size.shape) > 1}
    assert layouts == {"conv1": "mask", "conv2": "mask", "conv3": "mask", "hidden": "csr", "head": "csr"}
    written, dense = (sum(getattr(size, f"{kind}_bytes") for size in exported.sizes) for kind in ("written", "dense"))
    assert written < 0.11 * dense  # 5 % of the weights at 8 bytes of 4, and the row pointers
    file = tmp_path / "network.sparse.safetensors"
    assert written < file.stat().st_size < written + 8_000  # the header
    printed = capsys.readouterr().out
    assert f"{dense:,}" in printed and f"{written:,}" in printed and f"{file.stat().st_size:,} bytes" in printed
    _, agent = build(CATCH)
    agent.load_weights(load_sparse(file), acting_only=True)
    kept = {name: int(tensor.count_nonzero()) for name, tensor in acting_weights(agent).items()}
    assert kept == {size.name: size.kept for size in exported.sizes}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to write: add --sparse, --onnx or both"),
        (["--sparse", "checkpoint=best"], "has no such intact checkpoint"),
        (["--sparse", "checkpoint=first"], "checkpoint=first is not allowed: expected last|best"),
        (["--sparse", "folder=x"], "unknown key folder=x"),
        (["--sparse", "best"], "cannot read 'best': expected key=value"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    catch: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"run={catch}", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (catch / "exports").exists()


def test_help_lists_keys_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("--sparse", "--onnx", "checkpoint=last  [last|best]", "out=null"))


# ONNX

AGENTS = {
    "dqn": (*CATCH, "agent.network.hidden_width=16"),
    "dqn in bfloat16": (*CATCH, "agent.network.hidden_width=16", "agent.precision=bf16"),
    "ppo, discrete": ("agent=ppo_classic", "env=classic", *COMMON),
    "ppo, continuous": ("agent=ppo_continuous", "env=classic", "env.id=Pendulum-v1", *COMMON),
    "sac": ("agent=sac", "env=classic", "env.id=Pendulum-v1", *COMMON),
}


@pytest.fixture
def onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.mark.usefixtures("onnx")
@pytest.mark.parametrize("name", AGENTS)
def test_onnx_gives_the_actions_of_the_agent(name: str, tmp_path: Path) -> None:
    import onnxruntime

    from sextant.export_onnx import export_onnx, random_observations

    _, agent = build(AGENTS[name])
    before = {key: tensor.clone() for key, tensor in agent.weights().items()}
    assert export_onnx(agent, tmp_path / "network.onnx") < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
    assert all(torch.equal(tensor, before[key]) for key, tensor in agent.weights().items())
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    obs = random_observations(agent.observation_space, 5, np.random.default_rng(1))
    outputs = dict(zip([each.name for each in session.get_outputs()], session.run(None, {"obs": obs}), strict=True))
    action, _ = agent.act(obs)
    if name == "dqn in bfloat16":  # the agent rounds, the exported network does not
        assert outputs["values"].shape == (5, 3)
    elif name == "dqn":
        np.testing.assert_array_equal(outputs["values"].argmax(axis=1), action)
    elif name == "ppo, discrete":
        np.testing.assert_array_equal(outputs["logits"].argmax(axis=1), action)
    else:
        mean = np.tanh(outputs["mean"]) if name == "sac" else outputs["mean"]
        np.testing.assert_allclose(mean, action, atol=1e-5)
        assert outputs["std"].shape == outputs["mean"].shape


@pytest.mark.usefixtures("onnx")
def test_both_files_by_the_command(catch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", f"run={catch}", f"out={tmp_path}", "--onnx", "--sparse"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"network.onnx", "network.sparse.safetensors"}
    assert "onnxruntime's outputs differ from PyTorch's by at most" in capsys.readouterr().out


@pytest.mark.usefixtures("onnx")
def test_other_outputs_are_refused(tmp_path: Path) -> None:
    from sextant.export_onnx import export_onnx, largest_difference

    _, agent = build(CARTPOLE)
    export_onnx(agent, tmp_path / "network.onnx")
    network = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(RunError, match=r"onnxruntime's outputs differ from PyTorch's by up to .*: not exported"):
        largest_difference(network, tmp_path / "network.onnx", [np.ones((3, 4), np.float32)])


@pytest.mark.usefixtures("onnx")
def test_a_network_for_one_size_of_batch_is_refused(tmp_path: Path) -> None:
    from sextant.export_onnx import export_onnx

    class CountsRows(nn.Module):
        def forward(self, obs: Tensor) -> tuple[Tensor, None]:
            return obs + torch.zeros(len(obs), 1), None

    _, agent = build(CARTPOLE)
    agent.algorithm.policy.model = CountsRows()
    with pytest.raises(RunError, match="the network takes batches of 2 only"):
        export_onnx(agent, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("onnx")
def test_what_onnx_cannot_say_is_refused(tmp_path: Path) -> None:
    from sextant.export_onnx import export_onnx

    class DependsOnValues(nn.Module):
        def forward(self, obs: Tensor) -> tuple[Tensor, None]:
            return (obs if obs.sum() > 0 else -obs), None

    _, agent = build(CARTPOLE)
    agent.algorithm.policy.model = DependsOnValues()
    with pytest.raises(RunError, match="--onnx: the network cannot be expressed in ONNX"):
        export_onnx(agent, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_recurrent_agent_is_refused() -> None:
    from sextant.export_onnx import acting_network

    _, agent = build(CARTPOLE)
    agent.initial_state = lambda num_envs: np.zeros((num_envs, 3))
    with pytest.raises(ConfigError, match="keeps a recurrent state; only feed-forward agents can be exported"):
        acting_network(agent)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sextant import export_onnx

    _, agent = build(CARTPOLE)
    monkeypatch.setattr(export_onnx, "PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"--onnx needs the package no_such_package: pip install -e '\.\[onnx\]'"):
        export_onnx.export_onnx(agent, tmp_path / "network.onnx")


def test_random_observations_lie_in_the_space() -> None:
    from sextant.export_onnx import random_observations

    rng = np.random.default_rng(0)
    for space in (
        gymnasium.spaces.Box(0, 255, (2, 4, 4), np.uint8),
        gymnasium.spaces.Box(-0.5, 0.5, (3,), np.float32),
        gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
    ):
        obs = random_observations(space, 64, rng)
        assert obs.shape == (64, *space.shape) and obs.dtype == space.dtype and all(space.contains(row) for row in obs)
    assert random_observations(gymnasium.spaces.Box(0, 255, (2, 4, 4), np.uint8), 64, rng).max() == 255
