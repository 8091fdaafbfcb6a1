import json

import pytest

from fer_lightning.core.errors import FERError, as_user_error, describe_error, is_bug, printable

DATA = {"batch_size": 64, "eval_batch_size": 256, "image_size": 48}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB",
            r"out of memory \(2.00 GiB wanted\)",
        ),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "data.batch_size=64"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out of memory: lower data.batch_size=64"),
        ("CUDA error: no kernel image is available for execution on the device", "trainer=cpu"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "another process may hold it"),
    ],
)
def test_what_cuda_reports_becomes_a_sentence_with_a_remedy(words, expected, tmp_path):
    with pytest.raises(FERError, match=expected):
        raise as_user_error(RuntimeError(words), tmp_path, DATA)


def test_an_unknown_error_of_a_library_names_its_traceback(tmp_path):
    error = RuntimeError("CUDA error: device-side assert triggered")
    log = tmp_path / "train.log"
    expected = f"RuntimeError: CUDA error: device-side assert triggered; the traceback is in {log}"
    assert str(as_user_error(error, tmp_path, DATA, log_file=log)) == expected
    hint = "; HYDRA_FULL_ERROR=1 in the environment shows the traceback"
    assert str(as_user_error(error, tmp_path, DATA)).endswith(hint)


def test_the_place_of_an_error_is_the_users_own_line(tmp_path):
    def users_code():
        return json.loads("{")

    with pytest.raises(ValueError, match="Expecting") as caught:
        users_code()
    line = users_code.__code__.co_firstlineno + 1
    described = describe_error(caught.value)
    assert described.startswith("JSONDecodeError: Expecting property name")
    assert described.endswith(f"(test_errors.py, line {line}, in users_code)")


def test_only_a_programming_error_of_the_package_itself_is_a_bug():
    with pytest.raises(TypeError) as caught:
        printable(3)
    assert is_bug(caught.value)
    with pytest.raises(TypeError) as caught:
        json.loads(3)  # raised by the library
    assert not is_bug(caught.value)
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0  # raised by code of the user
    assert not is_bug(caught.value)
    assert not is_bug(AssertionError())
