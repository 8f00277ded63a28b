"""The network a feed-forward policy acts by, as an ONNX file that was checked against PyTorch.

Input ``obs``: a batch of observations as the environment gives them, of any size (bytes for images). Outputs:
``values`` of every discrete action (value-based agents), ``logits`` of every discrete action (PPO), or ``mean`` and
``std`` of a continuous action before any squashing (PPO, SAC).
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.networks import Body
from sextant.refusal import ConfigError
from sextant.run_dirs import RunError

if TYPE_CHECKING:
    from agents.interface import Agent

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""Of outputs between PyTorch and onnxruntime: both compute in float32, but sum in different orders."""
CHECKED_BATCHES = (1, 3, 16)


class ActingNetwork(nn.Module):
    """Observations in, what the policy acts by out; Tianshou's networks also take and give a state and an info.

    Args:
        network: of a feed-forward policy, copied; it computes in float32 here whatever the config's precision.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        for module in self.network.modules():
            if isinstance(module, Body) and hasattr(module, "precision"):
                module.precision = torch.float32

    def forward(self, obs: Tensor) -> Any:
        """Gives the outputs: a tensor, or mean and deviation."""
        return self.network(obs)[0]


def acting_network(agent: Agent) -> tuple[ActingNetwork, list[str]]:
    """Gives the network that an agent acts by and the names of its outputs.

    Raises:
        ConfigError: if the agent has a recurrent state, or its observations are no arrays.
    """
    if agent.initial_state(1) is not None:
        raise ConfigError("--onnx: this agent keeps a recurrent state; only feed-forward agents can be exported")
    if not isinstance(agent.observation_space, Box):
        raise ConfigError(f"--onnx: observations must be arrays, not {agent.observation_space}")
    policy: Any = agent.algorithm.policy
    actor = getattr(policy, "actor", None)
    if actor is None:
        return ActingNetwork(policy.model), ["values"]
    continuous = isinstance(agent.action_space, Box)
    return ActingNetwork(actor), ["mean", "std"] if continuous else ["logits"]


def export_onnx(agent: Agent, path: Path) -> float:
    """Writes the network an agent acts by, and compares its outputs with PyTorch's on random observations.

    Args:
        agent: feed-forward; not changed.
        path: of the file; replaced if it is there, once the check has passed.

    Returns:
        the largest absolute difference of an output.

    Raises:
        ConfigError: if the packages are missing or the agent is recurrent.
        RunError: if it cannot be expressed in ONNX, or the outputs differ.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"--onnx needs the package {missing[0]}: pip install -e '.[onnx]'")
    network, outputs = acting_network(agent)
    assert isinstance(agent.observation_space, Box)
    rng = np.random.default_rng(0)
    draft = path.with_name(f"{path.stem}.part.onnx")
    try:
        _write(network, torch.from_numpy(random_observations(agent.observation_space, 2, rng)), outputs, draft)
        batches = [random_observations(agent.observation_space, size, rng) for size in CHECKED_BATCHES]
        difference = largest_difference(network, draft, batches)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return difference


def random_observations(space: Box, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Gives observations within a space's bounds: integers uniformly, floats from a unit normal, clipped."""
    shape = (count, *space.shape)
    if space.dtype.kind in "iu":
        low, high = (bound.astype(np.int64) for bound in (space.low, space.high))
        return rng.integers(low, high, size=shape, endpoint=True).astype(space.dtype)
    return np.clip(rng.standard_normal(shape), space.low, space.high).astype(space.dtype)


def largest_difference(network: nn.Module, path: Path, batches: list[NDArray[Any]]) -> float:
    """Runs an ONNX file beside the network it came from.

    Args:
        network: gives a tensor or a tuple of them.
        path: of the file, with the input ``obs``.
        batches: observations.

    Returns:
        the largest absolute difference of an output.

    Raises:
        RunError: if an output differs by more than the tolerances, or the file takes one size of batch only.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    if isinstance(shape[0], int):  # a symbol where it is free
        raise RunError(
            f"--onnx: the network takes batches of {shape[0]} only, as written: it uses a batch's size as a number"
        )
    largest = 0.0
    for obs in batches:
        with torch.inference_mode():
            result = network(torch.from_numpy(obs))
        expected = [part.numpy() for part in (result if isinstance(result, tuple) else (result,))]
        for wanted, given in zip(expected, session.run(None, {"obs": obs}), strict=True):
            difference = float(np.abs(wanted - given).max())
            if not np.allclose(given, wanted, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE):
                raise RunError(f"onnxruntime's outputs differ from PyTorch's by up to {difference:.3g}: not exported")
            largest = max(largest, difference)
    return largest


def _write(network: nn.Module, obs: Tensor, outputs: list[str], path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it tells that torchvision is not installed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the exporter's own use of torch's internals (2.13: LeafSpec)
        try:
            torch.onnx.export(
                network,
                (obs,),
                path,
                input_names=["obs"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().split("\n")[0]
            raise RunError(f"--onnx: the network cannot be expressed in ONNX: {reason}") from error
