import os
from pathlib import Path

import pytest
import torch

from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError
from fer_lightning.models.resnet import ResNet


@pytest.fixture
def devices(monkeypatch):
    """Make torch see some kinds of device and no others."""

    def see(*kinds):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return see


@pytest.mark.parametrize(
    ("accelerator", "seen", "chosen"),
    [
        ("cpu", ["cuda", "mps"], "cpu"),
        ("auto", [], "cpu"),
        ("auto", ["mps"], "mps"),
        ("auto", ["cuda"], "cuda"),
        ("gpu", ["cuda"], "cuda"),
        ("gpu", ["mps"], "mps"),
    ],
)
def test_the_device_is_what_was_asked_for_where_it_is_there(devices, accelerator, seen, chosen):
    devices(*seen)
    assert hardware.choose_device(accelerator) == chosen


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "tpu"])
def test_a_missing_device_is_an_error_that_says_what_to_do(devices, accelerator):
    devices()
    with pytest.raises(FERError, match=rf"trainer.accelerator={accelerator}: .*trainer=auto or trainer=cpu"):
        hardware.choose_device(accelerator)


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        *(("32-true", "32-true"), ("bf16-mixed", "bf16-mixed"), ("16-mixed", "16-mixed")),
        *((32, "32-true"), ("32", "32-true"), (16, "16-mixed"), ("bf16", "bf16-mixed")),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_precision_that_was_named_is_taken_by_its_full_name(precision, name, device):
    if (name, device) == ("16-mixed", "cpu"):  # Lightning would compute in bf16 instead
        with pytest.raises(FERError, match=f"trainer.precision={precision}: float16 is for a GPU"):
            hardware.choose_precision(precision, device)
    else:
        assert hardware.choose_precision(precision, device) == name


@pytest.mark.parametrize(("multiplies", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_that_multiplies_bf16_itself_is_used_so(monkeypatch, multiplies, chosen):
    def is_supported(including_emulation=True):
        return True if including_emulation else multiplies

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert hardware.choose_precision("auto", "cuda") == chosen


class Operators:
    def __init__(self, native):
        self.native = native

    def _is_mkldnn_bf16_supported(self):
        return self.native


@pytest.mark.parametrize(
    ("native", "amx", "avx512", "vendor", "chosen"),
    [
        (True, True, True, "GenuineIntel", "bf16-mixed"),
        (True, False, True, "AuthenticAMD", "bf16-mixed"),
        (True, False, True, "GenuineIntel", "32-true"),
        (True, False, False, "AuthenticAMD", "32-true"),
        (False, True, True, "GenuineIntel", "32-true"),
        (True, False, True, None, "32-true"),
    ],
)
def test_a_processor_is_used_in_bf16_only_where_that_is_faster(
    monkeypatch, native, amx, avx512, vendor, chosen
):
    monkeypatch.setattr(torch.ops, "mkldnn", Operators(native))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(hardware, "_cpu_field", lambda name: vendor if name == "vendor_id" else "some name")
    assert hardware.choose_precision("auto", "cpu") == chosen


@pytest.mark.parametrize(
    ("device", "precision", "stem", "prefers"),
    [
        ("cpu", "32-true", "small", True),
        ("cpu", "32-true", "imagenet", False),
        ("cpu", "bf16-mixed", "imagenet", True),
        ("cuda", "32-true", "imagenet", True),
        ("mps", "32-true", "small", False),
    ],
)
def test_convolutions_get_the_layout_that_their_device_is_made_for(device, precision, stem, prefers):
    settings = {"num_classes": 7, "image_size": 48, "pretrained": False}
    network = ResNet(depth=18, stem=stem, **settings)
    assert hardware.prefers_channels_last(network, device, precision) is prefers
    assert hardware.prefers_channels_last(torch.nn.Conv2d(1, 1, 1), device, precision) is (device != "mps")


def test_a_build_without_onednn_is_not_asked_for_its_operators(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert hardware.choose_precision("auto", "cpu") == "32-true"


def test_an_mps_device_computes_in_float32():
    assert hardware.choose_precision("auto", "mps") == "32-true"


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
    ],
)
def test_a_container_s_quota_limits_the_cores(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path, **settings: f"{quota}\n")
    assert hardware.available_cores() == expected


def test_without_a_quota_the_cores_are_those_this_process_may_use(monkeypatch):
    def missing(path, **settings):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 6}, raising=False)
    monkeypatch.setattr(Path, "read_text", missing)
    assert hardware.available_cores() == 3


@pytest.fixture
def torch_settings(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # put back afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize(("num_threads", "expected"), [(2, 2), (None, 3)])
def test_torch_gets_the_threads_asked_for_or_every_core(monkeypatch, torch_settings, num_threads, expected):
    monkeypatch.setattr(hardware, "available_cores", lambda: 3)
    assert hardware.prepare(num_threads) == torch.get_num_threads() == expected


@pytest.mark.parametrize("num_threads", [0, -1])
def test_a_number_of_threads_is_positive(num_threads):
    with pytest.raises(FERError, match=f"num_threads={num_threads}: expected a positive number or null"):
        hardware.prepare(num_threads)


def test_the_machine_is_described_in_plain_values():
    described = hardware.describe_machine("cpu")
    assert described["cores"] == hardware.available_cores()
    assert described["accelerator"] is None
    assert described["cpu"]
    assert 0.1 < described["memory_gib"] < 1e5


def test_the_versions_name_python_and_what_can_change_a_result():
    versions = hardware.describe_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "lightning", "torchmetrics", "numpy", "hydra-core"} <= versions.keys()


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "__file__", str(tmp_path / "hardware.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert hardware.describe_git() is None


def test_without_git_there_is_no_commit_and_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.describe_git() is None


TRAINER = {"accelerator": "cpu", "precision": "32-true", "gradient_clip_val": None}


@pytest.mark.parametrize(
    ("device", "changes", "chosen"),
    [
        ("cpu", {}, True),
        ("cuda", {"precision": "bf16-mixed"}, True),
        ("cpu", {"gradient_clip_val": 1.0}, True),
        ("cuda", {"gradient_clip_val": 1.0, "precision": "bf16-mixed"}, True),
        ("cuda", {"gradient_clip_val": 1.0, "precision": "16-mixed"}, False),
        ("mps", {}, False),
    ],
)
def test_an_optimiser_is_fused_where_that_is_to_be_had(device, changes, chosen):
    assert hardware.choose_fused("auto", device, TRAINER | changes) is chosen


def test_an_optimiser_is_as_it_was_named():
    assert hardware.choose_fused(False, "cpu", TRAINER) is False
    assert hardware.choose_fused(True, "mps", TRAINER) is True
    with pytest.raises(FERError, match="optimizer.fused=yes please: expected auto, true or false"):
        hardware.choose_fused("yes please", "cpu", TRAINER)


def test_fusing_that_cannot_be_clipped_is_refused_before_training():
    clipped = TRAINER | {"precision": "16-mixed", "gradient_clip_val": 0.5}
    with pytest.raises(FERError, match=r"optimizer.fused=true: .*gradient_clip_val=0.5.*bf16-mixed"):
        hardware.choose_fused(True, "cuda", clipped)
    assert hardware.choose_fused(True, "cuda", clipped | {"precision": "bf16-mixed"})


def test_what_a_config_leaves_to_the_machine_is_resolved(devices):
    devices()
    config = {
        "trainer": TRAINER | {"accelerator": "auto"},
        "optimizer": {"lr": 1, "fused": "auto"},
        "seed": 3,
    }
    chosen = hardware.resolve_hardware(config)
    assert chosen == {"trainer": TRAINER, "optimizer": {"lr": 1, "fused": True}, "seed": 3}
    assert config["optimizer"]["fused"] == "auto"
    assert "fused" not in hardware.resolve_hardware(config | {"optimizer": {"lr": 1}})["optimizer"]


def test_a_job_takes_its_share_of_the_cores_unless_threads_are_named(monkeypatch, torch_settings):
    monkeypatch.setattr(hardware, "available_cores", lambda: 6)
    assert hardware.prepare(None, default=3) == torch.get_num_threads() == 3
    assert hardware.prepare(5, default=3) == 5


@pytest.mark.parametrize("seen", [True, False])
def test_only_where_there_is_no_gpu_does_torch_stop_looking_for_one(monkeypatch, torch_settings, seen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    hardware.prepare(1)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == (None if seen else "")


@pytest.mark.parametrize(
    ("visible", "count", "number", "left"),
    [(None, 4, 5, "1"), ("2,7", 2, 3, "7"), (None, 1, 3, None), ("6", 1, 3, "6"), (None, 0, 1, None)],
)
def test_jobs_side_by_side_take_a_gpu_each(monkeypatch, torch_settings, visible, count, number, left):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware.take_gpu(number)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == left


@pytest.mark.parametrize(
    ("device", "variable", "looked_for"),
    [
        ("cpu", "CXX", r"no C\+\+ compiler \(g\+\+, clang\+\+, c\+\+\)"),
        ("cuda", "CC", r"no C compiler \(gcc, "),
    ],
)
def test_compiling_without_a_compiler_is_refused(monkeypatch, device, variable, looked_for):
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    with pytest.raises(FERError, match=f"compile=true: found {looked_for}"):
        hardware.check_compiler(device)
    hardware.check_compiler("mps")
    monkeypatch.setenv(variable, "my-compiler")
    with pytest.raises(FERError, match=f"{variable}=my-compiler"):
        hardware.check_compiler(device)
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name if name == "my-compiler" else None)
    hardware.check_compiler(device)
