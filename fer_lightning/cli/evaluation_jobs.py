"""What a command of eval.py asks for: predictors, each with its data module."""

import logging
from collections.abc import Mapping
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
from fer_lightning.data.sampling import PAPER_PER_CLASS, Sample, parse_sample
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.inference.ensemble import EnsemblePredictor, Member, StoredPredictions
from fer_lightning.inference.stored_predictors import OnnxPredictor, load_predictor
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
    return [_with_data(config, _load(config, path), sample) for path in map(find_checkpoint, given)]


def _load(config: dict[str, Any], checkpoint: Path) -> CheckpointPredictor | OnnxPredictor:
    """Load one network, with the views of the command."""
    if config["predictor"]["name"] == "onnx" and checkpoint.suffix != ".onnx":
        raise FERError(f"checkpoint={checkpoint}: predictor=onnx takes .onnx files; leave predictor= out")
    predictor = load_predictor(checkpoint, trust=config["trust"], num_threads=config["num_threads"] or 0)
    check_stored(predictor.metadata.config, checkpoint, trains=False)
    return with_tta(predictor, config["predictor"].get("tta"))


def _with_data(config: dict[str, Any], predictor: CheckpointPredictor | OnnxPredictor, sample: Sample) -> Job:
    """Build the data module of a network: its own data set, or that of the command."""
    remembered = predictor.metadata.config
    node = choose_data(config, with_own_places(remembered, config)["data"])
    views = {} if config["predictor"].get("tta") is None else {"predictor": dict(config["predictor"])}
    data = build_datamodule(node, trust=_trusted(config))
    return Job(predictor, remembered | {"data": node} | views, data, sample)


def _trusted(config: dict[str, Any]) -> tuple[str, ...]:
    """Return what a data node may name: what the user trusts, and what the command itself names."""
    return (*config["trust"], *named_targets(config["data"]))


def _prepare_ensemble(config: dict[str, Any], given: list[str], sample: Sample) -> Job:
    """Load the members of an ensemble; all take the data set of the first one with a network.

    Raises:
        FERError: If a member is named twice, has other classes than the first, or cannot be chosen.
    """
    greedy = config["ensemble"] == "greedy"
    _check_members(given, greedy=greedy)
    predictors = [
        StoredPredictions(Path(place).expanduser())
        if _holds_predictions(place)
        else _load(config, find_checkpoint(place))
        for place in given
    ]
    networks = [each for each in predictors if not isinstance(each, StoredPredictions)]
    if not networks:
        raise FERError(
            f"ensemble: {', '.join(given)} hold predictions without a network; name at least one checkpoint, "
            "whose data set the ensemble takes"
        )
    for network in networks:
        _check_classes(network, networks[0])
    first = _with_data(config, networks[0], sample)
    node = first.config["data"]
    members = []
    for predictor in predictors:
        own = {} if isinstance(predictor, StoredPredictions) else predictor.metadata.config["data"]
        images = {key: own[key] for key in ("image_size", "channels") if key in own}
        same = images.items() <= node.items()
        data = first.data if same else build_datamodule(node | images, trust=_trusted(config))
        members.append(Member(predictor, data))
    described = {
        "data": node,
        "seed": config["seed"],
        "ensemble": config["ensemble"],
        "predictor": dict(config["predictor"]),
        "checkpoint": [str(predictor) for predictor in predictors],
    }
    ensemble = EnsemblePredictor(members, "greedy" if greedy else "all")
    return Job(ensemble, described, first.data, sample)


def _check_members(given: list[str], *, greedy: bool) -> None:
    """Check that each member of an ensemble counts once.

    Raises:
        FERError: If one is named twice or is an ensemble, or has no network and is to be chosen.
    """
    seen: dict[Path, str] = {}
    for place in given:
        stored = _holds_predictions(place)
        path = Path(place).expanduser() if stored else find_checkpoint(place)
        if path.resolve() in seen:
            raise FERError(f"ensemble: {seen[path.resolve()]} and {place} are one member; name each once")
        seen[path.resolve()] = place
        if stored and (read_json_object(path / "run.json") or {}).get("model") == "ensemble":
            raise FERError(f"ensemble: {place} is an ensemble; name its members instead")
        if stored and greedy:
            raise FERError(
                f"ensemble=greedy: {place} holds predictions without a network, which val cannot choose; use "
                "ensemble=true"
            )


def _check_classes(
    network: CheckpointPredictor | OnnxPredictor, first: CheckpointPredictor | OnnxPredictor
) -> None:
    """Check that a member has the classes of the first one, in the same order."""
    if network.metadata.classes != first.metadata.classes:
        raise FERError(
            f"ensemble: {network} has the classes {', '.join(network.metadata.classes)}, {first} has "
            f"{', '.join(first.metadata.classes)}; an ensemble needs members with the same classes in the "
            "same order"
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

    The class list, the image size and the channels are the checkpoint's: labels of another data set are
    mapped to it by name.
    """
    node = {key: value for key, value in config["data"].items() if value is not None}
    if "soft_targets" in node:
        raise FERError(f"data.soft_targets={node['soft_targets']}: only train.py reads it; leave it out")
    if HydraConfig.get().runtime.choices.get("data") is None:
        if remembered is None:
            raise FERError(
                "data=null: a language model remembers no data set; name one, such as data=fer2013"
            )
        node = without_soft_targets(remembered) | node
    else:
        node = take_what_is_there(node, split=config["split"])
    if remembered is not None:
        images: dict[str, Any] = {
            key: remembered[key] for key in ("image_size", "channels") if key in remembered
        }
        _check_images(node, images)
        node |= images | {key: remembered[key] for key in ("classes", "num_classes")}
    return locate(node, log=log.warning)


def _check_images(node: Mapping[str, Any], images: Mapping[str, Any]) -> None:
    """Refuse an image size or channels of this command that are not those of the network's training.

    Raises:
        FERError: If one is.
    """
    for key in sorted(given_settings()):
        name = key.removeprefix("data.")
        if name in images and node.get(name) != images[name]:
            raise FERError(f"{key}={node[name]}: the network was trained with {images[name]}; leave it out")


def given_settings() -> set[str]:
    """Return the keys that the command's overrides set."""
    return {override.lstrip("+").partition("=")[0] for override in HydraConfig.get().overrides.task}


def without_soft_targets(node: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a network was distilled from: evaluation needs no teacher, whose file may be gone."""
    return {key: value for key, value in node.items() if not key.startswith("soft_targets")}


def take_what_is_there(node: dict[str, Any], *, split: str) -> dict[str, Any]:
    """Let class folders lack a split or a class, or have unknown classes; the run says what was left out.

    Args:
        node: Of a named data set.
        split: The split to evaluate; ``all`` needs no images split off.
    """
    takes, _ = accepted_settings(load_target("data.source", node["source"]["_target_"]))
    given = given_settings()
    settings = {"partial": True} | ({"val_ratio": 0.0, "test_ratio": 0.0} if split == "all" else {})
    changed = {
        key: value
        for key, value in settings.items()
        if "partial" in takes and key in takes and f"data.source.{key}" not in given
    }
    return node | {"source": node["source"] | changed}
