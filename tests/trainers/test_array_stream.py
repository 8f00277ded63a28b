from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from trainers.array_stream import read_arrays, write_arrays
from trainers.checkpoint_files import DamagedCheckpointError, read_segment, write_segment

ARRAYS = {
    "frames": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "flags": np.array([True, False, True]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 84, 84), np.uint8),
    "big": np.array([2**64 - 1, 0], np.uint64),
    "signed": np.array([[-(2**63)], [7]], np.int64),
    "floats": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "halves": np.array([1.5, 65504.0], np.float16),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "every_second": np.arange(10, dtype=np.int16)[::2],
}


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    write_arrays(buffer, arrays)
    return buffer.getvalue()


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def test_round_trip_is_exact_and_writable() -> None:
    found = read_arrays(io.BytesIO(packed(ARRAYS)))
    assert_same(found, ARRAYS)
    found["frames"][0, 0, 0] = 99


def test_the_safetensors_library_reads_what_we_write() -> None:
    assert_same(safetensors.numpy.load(packed(ARRAYS)), ARRAYS)


def test_we_read_what_the_safetensors_library_writes() -> None:
    arrays = {name: np.asarray(array, order="C") for name, array in ARRAYS.items()}
    assert_same(read_arrays(io.BytesIO(safetensors.numpy.save(arrays))), ARRAYS)


def test_no_arrays_at_all() -> None:
    assert read_arrays(io.BytesIO(packed({}))) == {}


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([{}], object), np.zeros(2, ">f4"), np.zeros(2, complex)])
def test_other_dtypes_are_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"arrays\['x'\] has dtype"):
        packed({"x": array})


def test_cut_and_overlong_streams_are_refused() -> None:
    content = packed(ARRAYS)
    for length in (0, 7, 9, 200, len(content) - 1):
        with pytest.raises(ValueError, match="bytes"):
            read_arrays(io.BytesIO(content[:length]))
    with pytest.raises(ValueError, match="bytes left"):
        read_arrays(io.BytesIO(content + b"x"))


def test_segment_round_trip(tmp_path: Path) -> None:
    record = write_segment(tmp_path / "s.zst", ARRAYS)
    assert record.bytes == (tmp_path / "s.zst").stat().st_size
    assert_same(read_segment(tmp_path / "s.zst"), ARRAYS)


def test_large_segments_are_compressed_in_threads_and_bounded_memory(tmp_path: Path) -> None:
    frames = np.zeros((6000, 84, 84), np.uint8)  # 42 MB, above the threading limit
    frames[:, ::7] = np.arange(6000, dtype=np.uint16)[:, None, None].astype(np.uint8)
    tracemalloc.start()
    record = write_segment(tmp_path / "s.zst", {"frames": frames})
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 23  # blocks of 4 MiB
    assert record.bytes < frames.nbytes / 50
    np.testing.assert_array_equal(read_segment(tmp_path / "s.zst")["frames"], frames)


def test_an_altered_segment_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.zst"
    write_segment(path, {"x": np.random.default_rng(0).integers(256, size=5000, dtype=np.uint8)})
    content = bytearray(path.read_bytes())
    content[2500] ^= 4  # inside stored literals: only the frame's checksum can tell
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match="does not read as a replay segment"):
        read_segment(path)
    with pytest.raises(DamagedCheckpointError, match=r"gone\.zst"):
        read_segment(tmp_path / "gone.zst")
