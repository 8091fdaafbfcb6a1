"""The devices on which these tests run: the CPU always, a GPU with ``pytest -m gpu -n0``.

What needs a CUDA kernel, or says something of one, runs on the GPU alone.
"""

import pytest
import torch

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    """Name a device; fail where a GPU was asked for and there is none."""
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    return request.param


@pytest.fixture
def cuda():
    """Require a GPU, and leave its memory and torch's settings as they were."""
    if not torch.cuda.is_available():
        pytest.fail("pytest -m gpu: torch sees no CUDA device on this machine")
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
