import json

from sextant.config import compose_train_config
from sextant.provenance import git_state, provenance


def test_provenance_is_plain_data_and_complete():
    config = compose_train_config(["seed=5"])
    record = json.loads(json.dumps(provenance(config)))
    assert record["seed"] == 5
    assert record["versions"]["tianshou"] == "2.0.1"
    assert record["machine"]["cpus"] >= 1
    assert record["protocols"]["evaluation"]["hash"] == config.env.evaluation_protocol().hash
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["command"]


def test_git_state_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}
