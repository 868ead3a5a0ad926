import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melstate.asr.arrays import pack_words, read_arrays, unpack_words, write_arrays


@given(st.lists(st.text("abé'-", min_size=1), min_size=1))
def test_words_come_back(words):
    assert unpack_words(pack_words(words)) == words


def test_arrays_come_back_and_a_file_is_as_long_as_said(tmp_path):
    path, kept = tmp_path / "a.npz", {"x": np.arange(5), "y": np.ones((2, 3), np.uint8)}
    assert write_arrays(path, kept) == path.stat().st_size
    for name, array in read_arrays(path, "tables", "make them", dict).items():
        assert np.array_equal(array, kept[name]) and array.dtype == kept[name].dtype


def test_damaged_and_other_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match=r"no such tables; make them"):
        read_arrays(path, "tables", "make them", dict)
    write_arrays(path, {"x": np.random.default_rng(0).integers(0, 99, 2000)})
    whole = path.read_bytes()
    spoilt = [b"", b"x", whole[: len(whole) // 2], whole[:200] + bytes(300) + whole[500:]]
    for data in spoilt:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.npz: no tables \(.*make them"):
            read_arrays(path, "tables", "make them", dict)
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").replace(path)
    with pytest.raises(ValueError, match="a single array"):
        read_arrays(path, "tables", "make them", dict)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="no tables"):
        read_arrays(path, "tables", "make them", lambda arrays: arrays["y"])
