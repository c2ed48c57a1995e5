"""The part of a checkpoint that is spread over ranks: a folder next to it, in the format of torch's own
``torch.distributed.checkpoint``. Each rank writes its parts of weights and moments, and any number of ranks reads them.

::

    checkpoints/last.ckpt                     everything else, and the name of the folder; replaced atomically
    checkpoints/shards/000012-5f3c9a.../      weights and optimizer after rl_step 12; never written into again

So `last.ckpt` always names a complete folder: a new one is complete before the file names it, and goes when no file
does any more.
"""

from __future__ import annotations

import io
import pickle
import re
import shutil
import uuid
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mem1.policy.parts import is_part, spread_like

SHARDS = "shards"  # entry of a checkpoint: the folder's name; and the folder of all of them
WEIGHTS, MOMENTS = "weights", "optimizer"
NAME = re.compile(r"\d{6,}-[0-9a-f]{12}")
MANIFEST = ".metadata"  # torch's; written last
CLASSES: Mapping[str, Collection[str]] = {  # all that torch's manifest is made of; whatever else it names is refused
    "torch.distributed.checkpoint.metadata": (
        "Metadata",
        "TensorStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch": ("Size", "float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool"),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath", "WindowsPath"),
}


def has_parts(checkpoint: Mapping[str, Any]) -> bool:
    """Whether weights of a checkpoint are spread over ranks."""
    return any(is_part(weight) for weight in checkpoint["state_dict"].values())


def new_name(rl_step: int) -> str:
    """A name for the folder of an rl_step that nobody has given yet."""
    return f"{rl_step:06d}-{uuid.uuid4().hex[:12]}"


def folder_of(file: str | Path, name: str) -> Path:
    """The folder of that name next to a checkpoint's file."""
    return Path(file).parent / SHARDS / name


def without_parts(checkpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What remains for the checkpoint's file."""
    optimizers = [{**each, "state": {}} for each in checkpoint["optimizer_states"]]
    return {**checkpoint, "state_dict": {}, "optimizer_states": optimizers, SHARDS: name}


def write(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Write the parts of a checkpoint; every rank has to call it.

    Raises:
        OSError: they cannot be written; on every rank.
    """
    import torch.distributed.checkpoint as dcp

    try:
        dcp.save(_flat(checkpoint), storage_writer=dcp.FileSystemWriter(folder, overwrite=False))
    except dcp.api.CheckpointException as error:
        raise OSError(
            f"cannot write '{folder}': expected room for each rank's part, got '{_first(error)}'; "
            "earlier checkpoints are complete: free some space and resume from there"
        ) from error


def _flat(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by ``weights/NAME``, the optimizer's tensors by ``optimizer/NUMBER/NAME``."""
    found = {f"{WEIGHTS}/{name}": weight for name, weight in checkpoint["state_dict"].items()}
    (optimizer,) = checkpoint["optimizer_states"] or [{"state": {}}]
    for number, state in optimizer["state"].items():
        found |= {f"{MOMENTS}/{number}/{name}": torch.as_tensor(value) for name, value in state.items()}
    return found


def join(checkpoint: dict[str, Any], file: Any, parameters: Mapping[str, nn.Parameter] | None = None) -> dict[str, Any]:
    """A checkpoint with what is in its folder; as it is without one.

    Args:
        checkpoint: The content of the file.
        file: Its path.
        parameters: What trains, by name: tensors are spread over ranks as these are, and every rank has to call this.
            None for whole tensors, which each process reads for itself.

    Raises:
        ValueError: the folder is not there, not complete, or holds other weights.
    """
    if SHARDS not in checkpoint:
        return checkpoint if parameters is None else _spread(checkpoint, parameters)
    folder = checked_folder(checkpoint, file)
    reader = _reader(folder)
    places = reader.read_metadata().state_dict_metadata
    order = list(parameters or {})
    found: dict[str, Tensor] = {}
    for key, place in places.items():
        kind, _, name = key.partition("/")
        like = None
        if parameters is not None:
            own = name if kind == WEIGHTS else _named(order, name)
            like = parameters.get(own) if own else None
        found[key] = _room(place, like)
    import torch.distributed.checkpoint as dcp

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each process reads for itself
            dcp.load(found, storage_reader=reader, no_dist=parameters is None)
    except (Exception, dcp.api.CheckpointException) as error:  # the second is no Exception
        raise ValueError(f"corrupt checkpoint: expected complete shards in '{folder}', got: {_first(error)}") from error
    weights = {key.removeprefix(f"{WEIGHTS}/"): each for key, each in found.items() if key.startswith(f"{WEIGHTS}/")}
    state: dict[int, dict[str, Tensor]] = {}
    for key in found.keys() - {f"{WEIGHTS}/{name}" for name in weights}:
        _, number, name = key.split("/")
        state.setdefault(int(number), {})[name] = found[key]
    optimizers = [{**each, "state": state} for each in checkpoint["optimizer_states"]]
    return {**checkpoint, "state_dict": weights, "optimizer_states": optimizers}


def _first(error: BaseException) -> str:
    """The first cause of a failure, on one line."""
    failures = getattr(error, "failures", None)
    cause = next(iter(failures.values()))[0] if failures else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"


def checked_folder(checkpoint: Mapping[str, Any], file: Any) -> Path:
    """The folder that a checkpoint names.

    Raises:
        ValueError: its name is none, or it is not there.
    """
    name = checkpoint[SHARDS]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"broken checkpoint '{file}': expected the name of a folder of shards, got {name!r:.60}")
    folder = folder_of(file, name)
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"incomplete checkpoint '{file}': expected its weights in '{folder}', got no such folder; copy the folder "
            f"'{SHARDS}' along with the file, or set --ckpt_path to another one"
        )
    return folder


def _named(order: Sequence[str], name: str) -> str | None:
    """The weight that a tensor of the optimizer belongs to."""
    number = name.partition("/")[0]
    return order[int(number)] if number.isdigit() and int(number) < len(order) else None


def _room(place: Any, like: Tensor | None) -> Tensor:
    """Zeros for a tensor to be read into, spread as another one is where they are of one shape."""
    if like is not None and place.size == like.shape and is_part(like):
        return torch.zeros_like(like, dtype=place.properties.dtype, requires_grad=False)
    return torch.zeros(place.size, dtype=place.properties.dtype)


def _spread(checkpoint: dict[str, Any], parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """A checkpoint whose tensors are whole, with the moments spread as their weights are."""
    order = list(parameters.values())

    def spread(number: int, value: Any) -> Any:
        like = order[number] if number < len(order) else None
        same = isinstance(value, Tensor) and like is not None and value.shape == like.shape
        return spread_like(value, like) if same and like is not None else value

    optimizers = [
        {
            **each,
            "state": {n: {key: spread(n, value) for key, value in state.items()} for n, state in each["state"].items()},
        }
        for each in checkpoint["optimizer_states"]
    ]
    return {**checkpoint, "optimizer_states": optimizers}


def tidy(folder: Path) -> None:
    """Delete the folders of shards that no checkpoint in a folder names; nothing where there are none."""
    there = [path for path in (folder / SHARDS).glob("*-*") if NAME.fullmatch(path.name)]
    if not there:
        return
    contents = [torch.load(path, map_location="cpu", weights_only=True) for path in folder.glob("*.ckpt")]
    named = {content.get(SHARDS) for content in contents}
    for path in there:
        if path.name not in named:
            shutil.rmtree(path, ignore_errors=True)


class _Plain(pickle.Unpickler):
    """Reads torch's manifest, and makes nothing but what such a manifest is made of."""

    def find_class(self, module: str, name: str) -> Any:
        """A class of the list."""
        if name not in CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"the manifest names {module}.{name}")
        return super().find_class(module, name)


def _reader(folder: Path) -> Any:
    """torch's reader of a folder, but for the manifest, which torch would read as code."""
    import torch.distributed.checkpoint as dcp

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            try:
                found = _Plain(io.BytesIO((folder / MANIFEST).read_bytes())).load()
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise ValueError(
                    f"corrupt checkpoint: expected torch's manifest in '{folder}', got: {reason}"
                ) from error
            if any(Path(each.relative_path).name != str(each.relative_path) for each in found.storage_data.values()):
                raise ValueError(f"corrupt checkpoint: '{folder / MANIFEST}' names files outside of its folder")
            if found.storage_meta is not None:
                found.storage_meta.load_id = self.load_id
            return found

    return Reader(folder)
