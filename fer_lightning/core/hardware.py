"""The machine: devices, precision, threads, and how a run's record describes them."""

import inspect
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fer_lightning.core.errors import FERError
from fer_lightning.core.parallel import available_cores

Device = Literal["cpu", "cuda", "mps"]

_PACKAGES = (
    "fer_lightning",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "wandb",
    "httpx",
)


def choose_device(accelerator: str) -> Device:
    """Return the kind of device that ``trainer.accelerator`` selects.

    Raises:
        FERError: If a GPU is asked for and there is none.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise FERError(
            f"trainer.accelerator={accelerator}: not supported; use trainer=auto or trainer=cpu, or gpu"
        )
    if accelerator == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if accelerator == "auto":
        return "cpu"
    raise FERError(
        f"trainer.accelerator={accelerator}: torch sees no such device here; "
        "use trainer=auto or trainer=cpu, or install a torch build for your GPU"
    )


def choose_precision(precision: str | int, device: Device) -> str:
    """Resolve ``trainer.precision=auto``: bf16-mixed where the device multiplies bf16 faster, else 32-true.

    bf16 keeps float32's range, so it needs neither loss scaling nor other hyper-parameters. Only CPUs were
    measured.

    Raises:
        FERError: For float16 on a CPU, in whose place Lightning would compute in bf16.
    """
    if precision != "auto":
        name = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(str(precision), str(precision))
        if name == "16-mixed" and device == "cpu":
            raise FERError(
                f"trainer.precision={precision}: float16 is for a GPU; on a CPU expected auto, bf16-mixed or "
                "32-true"
            )
        return name
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if device == "cpu":
        return "bf16-mixed" if _multiplies_bf16_fast() else "32-true"
    return "32-true"


def _multiplies_bf16_fast() -> bool:
    """Return whether this CPU multiplies bf16 faster than float32: with AMX, or with AMD's AVX-512 bf16.

    With Intel's AVX-512 bf16 but without AMX, bf16 trains slower than float32 (benchmarks/README.md). It is
    a rule and not a measurement, so that a machine always makes the same choice.
    """
    fast = torch.cpu._is_amx_tile_supported() or (
        torch.cpu._is_avx512_bf16_supported() and _cpu_field("vendor_id") == "AuthenticAMD"
    )
    # The processor first: a torch built without oneDNN has no such operator to ask.
    return fast and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def prefers_channels_last(backbone: nn.Module, device: Device, precision: str) -> bool:
    """Return whether a network's convolutions are faster with the channels innermost.

    On a CPU in float32 they are slower with many channels on maps of a few pixels, which a backbone declares
    by ``small_maps`` (benchmarks/README.md). The tensor cores of a GPU are made for this format (not
    measured).
    """
    if not any(isinstance(layer, nn.Conv2d) for layer in backbone.modules()):
        return False
    few_pixels = bool(getattr(backbone, "small_maps", False))
    return device != "mps" and not (device == "cpu" and precision == "32-true" and few_pixels)


def choose_fused(fused: bool | str, device: Device, trainer: Mapping[str, Any]) -> bool:
    """Resolve ``optimizer.fused=auto``: one pass over all weights per step wherever torch has it.

    On a CPU it trains the MLP 1.8 times as fast as torch's default (benchmarks/README.md). On a GPU it was
    not measured.

    Args:
        fused: ``auto``, or what the config asks for.
        device: Where the weights are.
        trainer: A trainer node, its precision resolved.

    Raises:
        FERError: If it was asked for and Lightning cannot clip gradients with it.
    """
    # A fused optimiser unscales float16's gradients itself, after they would have been clipped.
    scaled, clip = str(trainer["precision"]) == "16-mixed", trainer["gradient_clip_val"]
    if fused == "auto":
        return device in ("cpu", "cuda") and not (scaled and clip)
    if not isinstance(fused, bool):
        raise FERError(f"optimizer.fused={fused}: expected auto, true or false")
    if fused and scaled and clip:
        raise FERError(
            f"optimizer.fused=true: Lightning cannot clip gradients (trainer.gradient_clip_val={clip}) with "
            f"it in 16-mixed; leave it auto, or set trainer.precision=bf16-mixed"
        )
    return fused


def resolve_hardware(config: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve what a config leaves to the machine; a resumed run must have the same.

    Args:
        config: Plain.

    Returns:
        The config with ``trainer.accelerator``, ``trainer.precision`` and, where the optimiser has it,
        ``optimizer.fused`` resolved.
    """
    trainer, optimizer = dict(config["trainer"]), dict(config["optimizer"])
    device = choose_device(trainer["accelerator"])
    if trainer.get("sync_batchnorm") and device == "cpu":
        raise FERError(
            "trainer.sync_batchnorm=true: torch computes batch normalisation over processes on GPUs alone; "
            "leave it false on a CPU"
        )
    trainer |= {"accelerator": device, "precision": choose_precision(trainer["precision"], device)}
    if optimizer.get("fused") == "auto" and not _takes_fused(optimizer):
        del optimizer["fused"]  # the option's, of an optimiser that the user replaced
    if "fused" in optimizer:
        optimizer["fused"] = choose_fused(optimizer["fused"], device, trainer)
    return {**config, "trainer": trainer, "optimizer": optimizer}


def _takes_fused(optimizer: Mapping[str, Any]) -> bool:
    """Return whether the optimiser of a node has a fused implementation; one that is not found has."""
    module, _, name = str(optimizer.get("_target_")).rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        return "fused" in inspect.signature(kind).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return True


def check_compiler(device: Device) -> None:
    """Refuse ``compile=true`` without the compiler it needs, whose absence torch reports in a hundred lines.

    On a CPU Inductor compiles its kernels with a C++ compiler, on a GPU Triton its launchers with a C one.
    """
    language, variable, commands = {
        "cpu": ("C++", "CXX", ["g++", "clang++", "c++"]),
        "cuda": ("C", "CC", ["gcc", "clang", "cc"]),
        "mps": (None, "", []),
    }[device]
    named = os.environ.get(variable)
    if language is None or any(map(shutil.which, [named] if named else commands)):
        return
    looked_for = f"{variable}={named}" if named else ", ".join(commands)
    raise FERError(
        f"compile=true: found no {language} compiler ({looked_for}), which torch.compile needs on this "
        "device; install one or leave compile=false"
    )


def prepare(num_threads: int | None, *, default: int | None = None) -> int:
    """Set torch's threads and arithmetic for this process.

    Args:
        num_threads: CPU threads; None takes the default.
        default: This process's share of the cores; None: all that it may use.

    Returns:
        The number of threads set.
    """
    threads = (default or available_cores()) if num_threads is None else num_threads
    if not isinstance(threads, int) or threads < 1:
        raise FERError(f"num_threads={num_threads}: expected a positive number or null")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # on CPUs a denormal number takes a hundred times as long as a normal one
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; CPUs are unaffected
    if not torch.cuda.is_available():
        # torch 2.14's optimisers look for an accelerator in each step, and a torch built for CUDA opens
        # NVIDIA's library each time to count GPUs, which takes 0.3 ms; with this it knows at once.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # For trainer.deterministic=true, and also without it: torch reads this once in a process, at the first
    # matrix product, which may be an earlier job's of the same sweep.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return threads


def take_gpu(number: int) -> None:
    """Restrict this process to one of several GPUs, so that jobs side by side do not all take the first.

    It was not tried on a machine with several GPUs.

    Args:
        number: The job's number. A process that has initialised CUDA keeps its GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if len(names) > 1 and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def _cpu_field(name: str) -> str | None:
    """Read a field of the first processor in Linux's ``/proc/cpuinfo``; None if there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return None


def _cpu_name() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def first_device(devices: Any) -> int:
    """Return the index of the first device of ``trainer.devices``, a count or a list of indices."""
    return int(devices[0]) if isinstance(devices, list | tuple) else 0


def describe_machine(device: Device, index: int = 0) -> dict[str, Any]:
    """Describe processor, memory and accelerator for ``run.json``.

    Args:
        device: The kind of device that trains.
        index: Which of the GPUs.
    """
    accelerator = {"cpu": None, "mps": "mps"}
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "accelerator": torch.cuda.get_device_name(index) if device == "cuda" else accelerator[device],
        "platform": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """List the versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # running from a checkout that was never installed
            continue
    return versions


def describe_git() -> dict[str, Any] | None:
    """Return the checkout's commit and whether it has uncommitted changes; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
