"""Tensors that are spread over ranks (`DTensor`s of full training, see `sharding`) next to ordinary ones."""

from __future__ import annotations

from torch import Tensor


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is spread over ranks."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts of all ranks, where it is spread over them: then every rank has to call it."""
    return tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined,no-any-return]


def here(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; all of one that is not spread over ranks."""
    return tensor.to_local() if is_part(tensor) else tensor  # type: ignore[attr-defined,no-any-return]


def spread_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor that every rank holds, spread as `other` is; as it is where `other` is not, or where it is spread."""
    if not is_part(other) or is_part(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(other.device), mesh, placements, src_data_rank=None)
