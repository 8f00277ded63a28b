"""A replay to arrays and JSON and back, incrementally and to the bit.

A checkpoint is the chunks of :func:`replay_data` since the last reset (those whose slots are all overwritten may go)
and one :func:`replay_state`. What lies in slots that hold no transition is not kept, except frames before the oldest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.arrays import Rows

if TYPE_CHECKING:
    from memory.replay import Replay

StateArrays = dict[str, np.ndarray]
ReplayData = Mapping[str, np.ndarray | Rows]


def replay_state(replay: Replay) -> tuple[StateArrays, dict[str, Any]]:
    """Gives counters, pending observations, priorities and the generator: everything but the transitions.

    Raises:
        ValueError: if a hook attached arrays to the replay; they would be lost.
    """
    attached = replay._meta.__dict__.keys() - replay._fields.keys()
    if attached:
        raise ValueError(f"entries {sorted(attached)} were attached to the replay and cannot be saved with it")
    arrays = {name: array.copy() for name, array in replay._counters().items()} | replay._pending()
    counters: dict[str, Any] = {
        "layout": _layout(replay),
        "rng": json.loads(json.dumps(replay._rng.bit_generator.state, default=np.ndarray.tolist)),
    }
    if replay.priorities is not None:
        arrays["priority"] = replay.priorities.leaves(replay.ring.all_indices())
        counters |= {"largest_priority": replay.priorities.largest, "beta": replay.priorities.beta}
    return arrays, counters


def replay_data(replay: Replay, since: np.ndarray | None) -> ReplayData:
    """Gives the transitions added since a checkpoint, and the newest one it held (``cut`` may have changed it).

    They are read when they are used: before the replay changes.

    Args:
        replay: read only.
        since: ``num_added`` at that checkpoint, None for everything that is held.
    Raises:
        ValueError: if ``since`` is not from this replay's past.
    """
    ring = replay.ring
    first_E = np.maximum(ring.num_added_E - np.minimum(ring.length_E + replay._history, ring.slots), 0)
    if since is not None:
        since = np.asarray(since)
        if since.shape != ring.num_added_E.shape or (since > ring.num_added_E).any():
            raise ValueError(f"since={since.tolist()} is no earlier num_added of {ring.num_added_E.tolist()}")
        reset_meanwhile_E = ring.start_E >= since
        first_E = np.where(reset_meanwhile_E, first_E, np.maximum(first_E, since - 1))
    index = ring.ranges(first_E)
    fields = {name: Rows(array, index) for name, array in replay._fields.items() if name != "done"}
    return {"index": index, **fields, **replay._extra_data(index)}


def load_replay(replay: Replay, chunks: Iterable[ReplayData], state: tuple[StateArrays, dict[str, Any]]) -> None:
    """Restores a replay; see :meth:`memory.replay.Replay.load`."""
    arrays, counters = state
    saved, own = counters["layout"], _layout(replay)
    if saved != own:
        differing = {name: (saved.get(name), own[name]) for name in own if saved.get(name) != own[name]}
        raise ValueError(f"the saved replay has another layout (saved, this one): {differing}")
    present = np.zeros(replay.maxsize, bool)
    for chunk in chunks:
        index = np.asarray(chunk["index"])
        if len(index) and (index.min() < 0 or index.max() >= replay.maxsize):
            raise ValueError(f"a chunk has slots outside [0, {replay.maxsize})")
        for name, array in replay._fields.items():
            if name != "done":
                array[index] = chunk[name]
        replay._fields["done"][index] = np.logical_or(chunk["terminated"], chunk["truncated"])
        replay._load_extra_data({name: np.asarray(chunk[name]) for name in chunk.keys() - replay._fields.keys()})
        present[index] = True
    for name, counter in replay._counters().items():
        counter[:] = arrays[name]
    held = replay.ring.all_indices()
    if not present[held].all():
        raise ValueError(f"the chunks lack {int((~present[held]).sum())} of the {len(held)} transitions held")
    replay._load_pending(arrays)
    if replay.priorities is not None:
        replay.priorities.restore(held, arrays["priority"], counters["largest_priority"])
        replay.priorities.beta = counters["beta"]
    replay._rng.bit_generator.state = counters["rng"]


def _layout(replay: Replay) -> dict[str, Any]:
    return {
        "kind": type(replay).__name__,
        "num_envs": replay.buffer_num,
        "slots_per_env": replay.ring.slots,
        "obs": [list(replay.obs_shape), str(replay.obs_dtype)],
        "act": [list(replay.act_shape), str(replay.act_dtype)],
        "prioritised": replay.priorities is not None,
    }
