import pytest

from fer_lightning.core.errors import FERError, as_user_error

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


def test_another_error_of_cuda_keeps_its_traceback(tmp_path):
    error = RuntimeError("CUDA error: device-side assert triggered")
    assert as_user_error(error, tmp_path, DATA) is error
