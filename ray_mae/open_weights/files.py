"""Files of weights that others wrote, read as tensors: nothing that lies in them is run."""

import argparse
import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings of files that PyTorch wrote."""
SAFE = ".safetensors"
INDEX = ".index.json"
"""Ending of the list of the files that share a model's weights."""

_CONVERT = (
    "to open it would run its code. Convert it where you trust it: "
    'python -c "import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in '
    "torch.load('{path}', weights_only=False).state_dict().items()}}, '{path}.safetensors')\""
)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        ValueError: it holds none.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object")
    return values


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name.

    Raises:
        ValueError: it is damaged, or none.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}") from error
    return tensors


def files_of_index(index: Path) -> list[Path]:
    """Returns the files that share the weights of a model.

    Raises:
        ValueError: the list names a file outside its folder, or one that is missing.
    """
    names = read_json(index).get("weight_map", {})
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} has no weight_map, which names the files")
    files = sorted(set(map(str, names.values())))
    for name in files:
        if Path(name).name != name or not name.endswith(SAFE):
            raise ValueError(
                f"{index} names weights outside its folder, or no safetensors file: {name}"
            )
        if not (index.parent / name).is_file():
            raise ValueError(
                f"{index} names {name}, which is missing: fetch all files of the model"
            )
    return [index.parent / name for name in files]


def read_pickle(path: Path) -> Any:
    """Returns what PyTorch saved in a file: tensors, numbers, texts, lists and dictionaries of them.

    Beside those `argparse.Namespace` is allowed, in which MAE's authors keep their arguments.

    Raises:
        ValueError: it holds other objects, whose code would run, or is damaged.
    """
    if objects := _objects_in(path):
        listed = ", ".join(objects[:3]) + (", …" if len(objects) > 3 else "")
        raise ValueError(
            f"{path} holds Python objects ({listed}), not only tensors: {_CONVERT.format(path=path)}"
        )
    with torch.serialization.safe_globals([argparse.Namespace]):
        for mmap in (True, False):  # files of before PyTorch 1.6 cannot be mapped
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            except pickle.UnpicklingError as error:
                found = re.search(r"GLOBAL ([\w.]+)", str(error))
                if found is None:
                    raise _damaged(path, error) from None
                raise ValueError(
                    f"{path} holds Python objects ({found[1]}), not only tensors: "
                    f"{_CONVERT.format(path=path)}"
                ) from None
            except Exception as error:
                if not mmap:
                    raise _damaged(path, error) from None
    raise AssertionError


def _objects_in(path: Path) -> list[str]:
    """The classes that a file would make objects of, but for the one that is allowed; [] if unknown."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of before PyTorch 1.6, or damaged: loading says what it is
        return []
    return sorted(set(found) - {"argparse.Namespace"})


def _damaged(path: Path, error: Exception) -> ValueError:
    first = str(error).strip().partition("\n")[0]
    return ValueError(f"{path} is damaged, or no file of PyTorch's: {first}")


def fingerprint(files: list[Path]) -> str:
    """Returns the SHA-256 of a file, or of the hashes of several."""
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def require_sound(path: Path, name: str, tensor: Tensor) -> Tensor:
    """Returns a weight in float32.

    Raises:
        ValueError: it is no floating point of up to five dimensions, or holds NaN or infinity.
    """
    if not tensor.is_floating_point() or tensor.ndim > 5:
        raise ValueError(
            f"{path}: weight {name} is {tensor.dtype} {list(tensor.shape)}, no weight of a network"
        )
    if not tensor.isfinite().all():
        raise ValueError(f"{path}: weight {name} holds values that are no numbers")
    return tensor.float()
