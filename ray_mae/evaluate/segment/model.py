"""A network that gives every voxel a class: the pretrained one with its decoder, and another last layer."""

import json
from pathlib import Path
from typing import Any

import torch
from monai.inferers.utils import sliding_window_inference
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.base import to_dict
from ray_mae.config.registry import load
from ray_mae.config.sections import EncoderSettings
from ray_mae.config.urls import opened
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.resenc import LAST_LAYER, ResEnc, fold_film
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.files import write_whole
from ray_mae.store import fetch

WEIGHTS, SEGMENTER = "segmenter.safetensors", "segmenter.json"


class Segmenter(nn.Module):
    """Volumes → classes of voxels."""

    def __init__(self, settings: EncoderSettings, values: list[int]) -> None:
        """Fresh weights. values: what the classes are called in label maps, the background first."""
        super().__init__()
        assert settings.segmentation is not None
        self.values = values
        self.encoder: Any
        self.decoder: Any
        self.encoder, self.decoder = load(settings.segmentation)(settings, classes=len(values))

    @property
    def settings(self) -> EncoderSettings:
        """The encoder's."""
        settings: EncoderSettings = self.encoder.settings
        return settings

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K, D, H, W] float32 of clean crops [B, 1, D, H, W]."""
        if isinstance(self.encoder, TokenEncoder):
            logits: Tensor = self.decoder(self.encoder(x)[:, self.encoder.prefix :])
        else:
            e = self.encoder.embed(torch.zeros(len(x), device=x.device))
            logits = self.decoder(self.encoder.skips(x, e), e)
        return logits.float()

    @torch.no_grad()
    def logits(self, volume: Tensor, *, overlap: float = 0.5, windows: int = 2) -> Tensor:
        """[K, X, Y, Z] of a whole volume [X, Y, Z]: MONAI's sliding windows, weighted to the middle.

        volume: z-scored, 0 where nothing is; windows: per forward pass.
        """
        logits = sliding_window_inference(
            volume[None, None],
            roi_size=self.settings.input_size,
            sw_batch_size=windows,
            predictor=self,
            overlap=overlap,
            mode="gaussian",
        )
        assert isinstance(logits, Tensor)
        return logits[0]

    def segment(self, volume: Tensor, *, overlap: float = 0.5, windows: int = 2) -> Tensor:
        """The label map [X, Y, Z] uint8 of a whole volume, in the archive's own values."""
        index = self.logits(volume, overlap=overlap, windows=windows).argmax(0)
        return torch.tensor(self.values, dtype=torch.uint8, device=index.device)[index]

    def initialise_from(self, checkpoint: Path, *, decoder: bool) -> None:
        """Take the encoder's weights of a checkpoint, and the decoder's, but for its last layer.

        Raises ValueError where there is none, as in an exported encoder.
        """
        _load(self.encoder, ckpt.encoder_weights(checkpoint))
        if decoder:
            own = self.decoder.state_dict()
            inner = {k: v for k, v in own.items() if not k.startswith(LAST_LAYER)}
            trained = ckpt.decoder_weights(checkpoint, inner)
            if not trained:
                raise ValueError(
                    f"{checkpoint} holds no decoder of this network, since its method trains none: take init "
                    "encoder"
                )
            fresh = {k: v.numpy() for k, v in own.items() if k.startswith(LAST_LAYER)}
            _load(self.decoder, trained | fresh)

    def drop_film(self) -> None:
        """Leave FiLM out, without changing what is computed at noise level 0."""
        if isinstance(self.encoder, ResEnc):
            fold_film(self.encoder, self.decoder)

    def save(self, folder: Path) -> None:
        """Write the files that `load_segmenter` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / WEIGHTS, save(weights_of(self)))
        facts = {"encoder": to_dict(self.settings), "values": self.values}
        write_whole(folder / SEGMENTER, json.dumps(facts, indent=1) + "\n")


def _load(module: nn.Module, weights: ckpt.Weights) -> None:
    module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})


def load_segmenter(folder: Path | str) -> Segmenter:
    """Loads a trained segmenter.

    Args:
        folder: models/START-seedN in the output of `ray-mae evaluate segment`.

    Returns:
        It, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: where there is none.
    """
    path = opened(folder) / SEGMENTER
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give a folder below models/ in the --output folder of "
            "`ray-mae evaluate segment`"
        )
    facts = json.loads(path.read_text())
    # 0.1 wrote the method's settings, the network's among them
    settings, _ = ckpt.sections_of(facts.get("method", facts))
    model = Segmenter(settings, facts["values"])
    model.load_state_dict(load_file(fetch(path.parent / WEIGHTS)))
    return model.eval()
