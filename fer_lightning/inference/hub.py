"""A network as Hugging Face's ``PyTorchModelHubMixin`` loads it, from a folder or from the Hub."""

from pathlib import Path
from typing import Any, Self

from fer_lightning.core.errors import FERError
from fer_lightning.inference.export.graph import ProbabilityNetwork
from fer_lightning.inference.network import Network, load_network

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError as missing:
    raise FERError("HubNetwork: huggingface_hub is not installed; pip install huggingface_hub") from missing

FILES = ("config.json", "model.safetensors")


class HubNetwork(
    ProbabilityNetwork,
    PyTorchModelHubMixin,
    library_name="fer_lightning",
    pipeline_tag="image-classification",
    tags=["facial-expression-recognition"],
):
    """Maps ``(N, 1 or 3, H, W)`` uint8 faces to ``(N, num_classes)`` calibrated probabilities.

    ``HubNetwork.from_pretrained(FOLDER or "USER/NAME")`` loads what ``export --format safetensors`` wrote.

    Args:
        network: From ``load_network``.

    Attributes:
        classes: Class names in the order of the probabilities.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.classes = network.metadata.classes

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_config: Any,
    ) -> Self:
        """Load the weights and their description; no code of the folder is executed."""
        folder = Path(model_id)
        if not folder.is_dir():
            for name in FILES:
                path = hf_hub_download(
                    repo_id=model_id,
                    filename=name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
                folder = Path(path).parent
        return cls(load_network(folder / "model.safetensors"))

    def _save_pretrained(self, save_directory: Path) -> None:
        raise FERError(
            f"{save_directory}: write a folder for the Hub with fer-lightning export --format safetensors"
        )
