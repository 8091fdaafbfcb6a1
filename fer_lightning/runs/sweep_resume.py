"""``resume=FOLDER`` of a sweep: the command that began it, as far as a record may be trusted."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException

from fer_lightning.config.compare import flatten
from fer_lightning.config.folders import CONF
from fer_lightning.config.targets import check_targets
from fer_lightning.core.errors import FERError, exit_with_error
from fer_lightning.runs.sweep import RECORD, kept_overrides, read_sweep, sweep_dir_override

# A record may come from anywhere. Of its overrides, settings of this project are followed, such as
# "model=cnn" or "+trainer.max_epochs=3", but no option ("--config-dir=x") and no "hydra.callbacks".
_SETTING = re.compile(r"[+~]*(?!hydra\b)[A-Za-z_]\w*([./]\w+)*(=.*)?", re.DOTALL)
# Settings that lead elsewhere: where a run writes ("data.cache_dir"), who sees it ("logger.wandb.entity"),
# what it trusts.
_ELSEWHERE = re.compile(r"(.*\.)?(\w*_dir|dirpath|entity|trust)")
_OWN = ("data.cache_dir=",)  # which a user may give along with the sweep's folder
# Hydra's own settings that cannot name a program, such as "hydra.launcher.n_jobs=4". Not among them: commands
# of a shell (setup), options of sbatch (additional_parameters), who pays (account), another Ray (ray.init).
# Slurm runs a script with these values, in comments: a value is a single line.
_HARMLESS = re.compile(
    r"\+?hydra(/launcher|/sweeper|/sweeper/sampler"
    r"|\.launcher\.(n_jobs|timeout_min|mem_gb|cpus_per_task|gpus_per_node|partition|qos|constraint|exclude|gres"
    r"|cpus_per_gpu|gpus_per_task|mem_per_gpu|mem_per_cpu|array_parallelism|max_num_timeout|signal_delay_s"
    r"|stderr_to_stdout|ray\.remote\.(num_cpus|num_gpus|memory))"
    r"|\.sweeper\.(n_trials|n_jobs|direction|max_batch_size|sampler\.seed|params\.[\w.]+))=[^{}$/\\\x00-\x1f\x7f]*"
)


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """Replace ``resume=FOLDER`` of a sweep by the command that began it.

    It ends the command with a sentence if there are further overrides, which the sweep may not have had.

    Args:
        arguments: The command's arguments, as ``sort_arguments`` returns them; options are kept.
    """
    named = [
        argument.partition("=")[2].strip("'\"") for argument in arguments if argument.startswith("resume=")
    ]
    folder = Path(named[-1]).expanduser() if named else Path()
    try:
        record = read_sweep(folder) if named else None
    except FERError as error:
        exit_with_error(error)
    if record is None:
        return list(arguments)
    options = [argument for argument in arguments if argument.startswith("--") and argument != "--multirun"]
    others = [
        argument for argument in arguments if not argument.startswith(("--", "resume=", "hydra.", "hydra/"))
    ]
    caches = [argument for argument in others if argument.lstrip("+").startswith(_OWN)]
    others = [argument for argument in others if argument not in caches]
    if caches:
        record["overrides"] = [
            override for override in record["overrides"] if not override.lstrip("+").startswith(_OWN)
        ]
    if others and kept_overrides(others) != kept_overrides(record["overrides"]):
        begun = " ".join(record["overrides"])
        exit_with_error(
            FERError(
                f"resume={folder}: a sweep continues as it was begun ({begun}); leave out {' '.join(others)}"
            )
        )
    hydra = [argument for argument in arguments if argument.startswith(("hydra.", "hydra/"))]
    try:
        recorded = [each for each in record["hydra"] if each in _hydra_overrides(record["hydra"], hydra)]
        _check_followed(folder, record["overrides"], recorded)
    except FERError as error:
        exit_with_error(error)
    return [
        "--multirun",
        *options,
        *record["overrides"],
        *caches,
        *_hydra_overrides(record["hydra"], hydra),
        sweep_dir_override(folder),
        "resume=auto",
    ]


def _hydra_overrides(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return Hydra's settings of a continued sweep: those given, or recorded ones with other sweeper's."""
    if not all(override.startswith("hydra.sweeper.") for override in given):
        return list(given)
    changed = {override.partition("=")[0] for override in given}
    return [*(each for each in recorded if each.partition("=")[0] not in changed), *given]


def _check_followed(folder: Path, overrides: Sequence[str], hydra: Sequence[str]) -> None:
    """Refuse a record that would run a program, write elsewhere or read this machine's environment."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        option_elsewhere = (CONF / key).is_dir() and ("/" in value or "\\" in value)  # model=../../evil
        led = not _SETTING.fullmatch(override) or _ELSEWHERE.fullmatch(key)
        if led or "${" in override or option_elsewhere:
            raise _refused(folder, f"{override} is not followed out of a file")
        try:
            _check_values(override)
        except (HydraException, FERError) as error:
            raise _refused(folder, f"{override} is not followed out of a file ({error})") from error
    for override in hydra:
        if not _HARMLESS.fullmatch(override):
            raise _refused(folder, f"{override} can name a program to run, and is not followed out of a file")


def _check_values(override: str) -> None:
    """Refuse an override that names a target off the allow-list, as a value or within one."""
    parsed = OverridesParser.create().parse_override(override)
    value = parsed._value
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    for each in values:
        plain = _plain(each)
        is_target = parsed.key_or_group.rpartition(".")[2] == "_target_"
        check_targets({"_target_": plain} if is_target else plain)
        elsewhere = [key for key in flatten({"value": plain}) if _ELSEWHERE.fullmatch(key)]
        if elsewhere:
            raise FERError(f"{elsewhere[0].removeprefix('value.')} leads elsewhere")


def _plain(value: Any) -> Any:
    """Turn a parsed value into plain containers."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _refused(folder: Path, why: str) -> FERError:
    return FERError(
        f"{folder / RECORD}: {why}; if this sweep is yours, repeat its command with resume=auto and "
        f"{sweep_dir_override(folder)}"
    )
