from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from adv_detect.networks.numpy_pickle import read_pickled_arrays

VALUES = np.array([[1.5, -2.0, 3.0], [0.0, 1e-30, 7.0]], dtype=np.float32)


def python_2_pickle(raw: bytes) -> bytes:
    """A dictionary with one float32 array of two numbers, opcode by opcode as Python 2 writes it."""
    return (
        b"\x80\x02}U\x07fc.biascnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbs."
    )


class Malicious:
    """Touches a file when it is unpickled by Python's own reader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_round_trip_of_every_protocol(tmp_path, protocol):
    arrays = OrderedDict(
        a=VALUES,
        fortran=np.asfortranarray(VALUES),
        swapped=VALUES.astype(">f8"),
        transposed=np.arange(24).reshape(2, 3, 4).transpose(0, 2, 1),
        empty=np.zeros((0, 3), np.float32),
        zero_axes=np.array(4, np.int64),
        scalar=np.float64(0.25),
        text="dropped",
    )
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))

    read = read_pickled_arrays(tmp_path / "arrays.pkl")

    assert set(read) == set(arrays) - {"text"}
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype.isnative
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_python_2_strings(tmp_path):
    values = np.array([-1.25, 3e38], dtype="<f4")
    (tmp_path / "two.pkl").write_bytes(python_2_pickle(values.tobytes()))
    read = read_pickled_arrays(tmp_path / "two.pkl")
    np.testing.assert_array_equal(read["fc.bias"], values)


def test_code_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "made-by-the-pickle"
    data = pickle.dumps({"fc.bias": VALUES, "trap": Malicious(victim)})
    (tmp_path / "evil.pkl").write_bytes(data)

    with pytest.raises(pickle.UnpicklingError, match=r"the file asks for \w+\.mkdir; only NumPy arrays"):
        read_pickled_arrays(tmp_path / "evil.pkl")

    assert not victim.exists()
    pickle.loads(data)
    assert victim.exists(), "the trap itself must work, or this test shows nothing"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([VALUES]), "expected a dictionary of arrays, got list"),
        (pickle.dumps({"a": np.array(["text"])}), "expected numbers"),
        (pickle.dumps({"a": np.array([{}, None])}), "expected numbers"),
        (pickle.dumps({"a": VALUES})[:-40], "not a readable pickle|truncated"),
        (b"this is a text file\n", "could not find MARK"),
        (b"", "not a readable pickle"),
        (b"\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.", "expected latin1 text, got encoding 'zip'"),
        (b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\nNNN\x87Rs.", "an array without data"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "expected a dictionary"),
    ],
)
def test_other_content_is_refused(tmp_path, data, message):
    (tmp_path / "other.pkl").write_bytes(data)
    with pytest.raises(pickle.UnpicklingError, match=message):
        read_pickled_arrays(tmp_path / "other.pkl")
