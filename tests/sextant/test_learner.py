"""What a config that leaves things open is settled to."""

from __future__ import annotations

import pytest
import torch

from sextant.config import compose_train_config
from sextant.learner import settled
from sextant.refusal import ConfigError
from trainers.distributed import ALONE


def test_a_cuda_graph_is_refused_where_auto_finds_no_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = compose_train_config(["agent=dqn", "agent.cuda_graph=true", "threads=1"])
    with pytest.raises(ConfigError, match="cuda_graph=true needs a CUDA device; this machine has none"):
        settled(config, lambda config: lambda: None, print, ALONE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settled(config, lambda config: lambda: None, print, ALONE).device == "cuda"
