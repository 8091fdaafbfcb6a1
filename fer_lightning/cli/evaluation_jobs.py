"""What a command of eval.py asks for: predictors, each with its data module."""

import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.hydra_config import HydraConfig

from fer_lightning.config.checks import check_stored
from fer_lightning.config.instantiate import accepted_settings, load_target
from fer_lightning.config.places import with_own_places
from fer_lightning.config.targets import ANY_TARGET, named_targets
from fer_lightning.core.errors import FERError
from fer_lightning.core.files import read_json_object
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.data.sampling import (
    PAPER_PER_CLASS,
    Sample,
    parse_sample,
)
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.inference.ensemble import EnsemblePredictor, Member, StoredPredictions
from fer_lightning.inference.stored_predictors import (
    OnnxPredictor,
    load_predictor,
)
from fer_lightning.llm.settings import LLMSettings
from fer_lightning.training.build import build_datamodule
from fer_lightning.training.checkpoint import find_checkpoint, holds_checkpoint
from fer_lightning.training.views import TTA, TTA_NAMES

log = logging.getLogger("fer_lightning")


class Job(NamedTuple):
    """A predictor and the data to evaluate it on.

    Attributes:
        predictor: A network in a file, several of them as one, or a language model.
        config: The content of ``config.yaml``, with its data located.
        data: The data module, before ``setup``.
        sample: Which images of the split.
    """

    predictor: CheckpointPredictor | OnnxPredictor | EnsemblePredictor | LLMSettings
    config: dict[str, Any]
    data: FERDataModule
    sample: Sample


def prepare(config: dict[str, Any]) -> list[Job]:
    """Load the predictors, locate their data and build their data modules."""
    if config["predictor"]["name"] == "llm":
        if config["checkpoint"] is not None:
            raise FERError(
                f"checkpoint={config['checkpoint']}: predictor=llm asks a server; leave one of the two out"
            )
        if config["ensemble"]:
            raise FERError(
                f"ensemble={str(config['ensemble']).lower()}: predictor=llm evaluates one model; name the "
                "folder of its evaluation among the checkpoints of an ensemble"
            )
        model = LLMSettings.from_config(config["predictor"])
        sample = parse_sample(config["sample"], auto=PAPER_PER_CLASS)
        node = choose_data(config, None)
        return [Job(model, config | {"data": node}, build_datamodule(node, trust=ANY_TARGET), sample)]
    given = config["checkpoint"] if isinstance(config["checkpoint"], list) else [config["checkpoint"]]
    if not given or None in given:
        raise FERError(
            "checkpoint: missing; name a checkpoint or a run folder (checkpoint=PATH), or ask a language "
            "model (predictor=llm)"
        )
    tta, ensemble = config["predictor"].get("tta"), config["ensemble"]
    if tta is not None and tta not in TTA_NAMES:
        raise FERError(f"predictor.tta={tta}: expected {', '.join(TTA_NAMES[:-1])} or {TTA_NAMES[-1]}")
    if ensemble is not True and ensemble is not False and ensemble != "greedy":
        raise FERError(f"ensemble={ensemble}: expected true, false or greedy")
    if ensemble and len(given) < 2:
        raise FERError(
            f"ensemble={str(ensemble).lower()}: one checkpoint is no ensemble; name several: "
            "'checkpoint=[a,b]'"
        )
    sample = parse_sample(config["sample"], auto=None)
    if ensemble:
        return [_prepare_ensemble(config, given, sample)]
    return [_prepare_checkpoint(config, checkpoint, sample) for checkpoint in map(find_checkpoint, given)]


def _prepare_checkpoint(config: dict[str, Any], checkpoint: Path, sample: Sample) -> Job:
    """Load one checkpoint and build its data module."""
    if config["predictor"]["name"] == "onnx" and checkpoint.suffix != ".onnx":
        raise FERError(f"checkpoint={checkpoint}: predictor=onnx takes .onnx files; leave predictor= out")
    predictor = load_predictor(checkpoint, trust=config["trust"], num_threads=config["num_threads"] or 0)
    predictor = with_tta(predictor, config["predictor"].get("tta"))
    remembered = predictor.metadata.config
    check_stored(remembered, checkpoint, trains=False)
    node = choose_data(config, with_own_places(remembered, config)["data"])
    trust = (*config["trust"], *named_targets(config["data"]))
    data = build_datamodule(node, trust=trust)
    tta = config["predictor"].get("tta")
    own = {"predictor": dict(config["predictor"])} if tta is not None else {}
    return Job(predictor, remembered | {"data": node} | own, data, sample)


def _prepare_ensemble(config: dict[str, Any], given: list[str], sample: Sample) -> Job:
    """Load the members of an ensemble; all take the data set of the first one with a network.

    Raises:
        FERError: If a member is named twice, has other classes than the first, or cannot be chosen.
    """
    greedy = config["ensemble"] == "greedy"
    _check_members(given, greedy=greedy)
    first: Job | None = None
    members: list[tuple[Any, Job | None]] = []
    for place in given:
        if _holds_predictions(place):
            members.append((StoredPredictions(Path(place).expanduser()), None))
            continue
        job = _prepare_checkpoint(config, find_checkpoint(place), sample)
        first = first or job
        _check_classes(job, first)
        members.append((job.predictor, job))
    if first is None:
        raise FERError(
            f"ensemble: {', '.join(given)} hold predictions without a network; name at least one checkpoint, "
            "whose data set the ensemble takes"
        )
    trust = (*config["trust"], *named_targets(config["data"]))
    made = []
    for predictor, loaded in members:
        data = first.data
        if loaded is not None and loaded is not first:
            own = {
                key: loaded.config["data"][key]
                for key in ("image_size", "channels")
                if key in loaded.config["data"]
            }
            same = all(first.config["data"].get(key) == value for key, value in own.items())
            data = first.data if same else build_datamodule(first.config["data"] | own, trust=trust)
        made.append(Member(predictor, data))
    ensemble = EnsemblePredictor(made, "greedy" if greedy else "all")
    node = {
        "data": first.config["data"],
        "seed": config["seed"],
        "ensemble": config["ensemble"],
        "predictor": dict(config["predictor"]),
        "checkpoint": [str(member.predictor) for member in made],
    }
    return Job(ensemble, node, first.data, sample)


def _check_members(given: list[str], *, greedy: bool) -> None:
    """Check that each member of an ensemble counts once.

    Raises:
        FERError: If one is named twice or is an ensemble, or has no network and is to be chosen.
    """
    seen: dict[Path, str] = {}
    for place in given:
        stored = _holds_predictions(place)
        path = Path(place).expanduser() if stored else find_checkpoint(place)
        if (before := seen.setdefault(path.resolve(), place)) is not place:
            raise FERError(f"ensemble: {before} and {place} are one member; name each once")
        if stored and (read_json_object(path / "run.json") or {}).get("model") == "ensemble":
            raise FERError(f"ensemble: {place} is an ensemble; name its members instead")
        if stored and greedy:
            raise FERError(
                f"ensemble=greedy: {place} holds predictions without a network, which val cannot choose; use "
                "ensemble=true"
            )


def _check_classes(job: Job, first: Job) -> None:
    """Check that a member has the classes of the first one, in the same order."""
    ours, theirs = (cast(Any, each.predictor).metadata.classes for each in (first, job))
    if ours != theirs:
        raise FERError(
            f"ensemble: {job.predictor} has the classes {', '.join(theirs)}, {first.predictor} has "
            f"{', '.join(ours)}; an ensemble needs members with the same classes in the same order"
        )


def _holds_predictions(place: str) -> bool:
    """Return whether a folder holds predictions and no network."""
    folder = Path(place).expanduser()
    return folder.is_dir() and not holds_checkpoint(folder) and any(folder.glob("predictions_*.npz"))


def with_tta(
    predictor: CheckpointPredictor | OnnxPredictor, tta: object
) -> CheckpointPredictor | OnnxPredictor:
    """Set the views that a checkpoint predicts with; None keeps its own."""
    if tta is None:
        return predictor
    if isinstance(predictor, OnnxPredictor):
        raise FERError(
            f"predictor.tta={tta}: {predictor.path} computes its own views, as it was exported; leave it out"
        )
    return predictor.with_tta(cast(TTA, tta))


def choose_data(config: dict[str, Any], remembered: dict[str, Any] | None) -> dict[str, Any]:
    """Take the named data node, or the one a checkpoint remembers, with the command's overrides.

    The class list is the checkpoint's: labels of another data set are mapped to it by name.
    """
    node = {key: value for key, value in config["data"].items() if value is not None}
    if HydraConfig.get().runtime.choices.get("data") is None:
        if remembered is None:
            raise FERError(
                "data=null: a language model remembers no data set; name one, such as data=fer2013"
            )
        node = remembered | node
    else:
        node = take_what_is_there(node, split=config["split"])
    if remembered is not None:
        node |= {key: remembered[key] for key in ("classes", "num_classes", "image_size")}
    return locate(node, log=log.warning)


def take_what_is_there(node: dict[str, Any], *, split: str) -> dict[str, Any]:
    """Let class folders lack a split or a class, or have unknown classes; the run says what was left out.

    Args:
        node: Of a named data set.
        split: The split to evaluate; ``all`` needs no images split off.
    """
    takes, _ = accepted_settings(load_target("data.source", node["source"]["_target_"]))
    given = {override.lstrip("+").partition("=")[0] for override in HydraConfig.get().overrides.task}
    settings = {"partial": True} | ({"val_ratio": 0.0, "test_ratio": 0.0} if split == "all" else {})
    changed = {
        key: value
        for key, value in settings.items()
        if "partial" in takes and key in takes and f"data.source.{key}" not in given
    }
    return node | {"source": node["source"] | changed}
