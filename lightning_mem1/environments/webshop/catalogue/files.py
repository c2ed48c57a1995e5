"""The official WebShop files of a folder: which they are, and their products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_mem1.environments.webshop.catalogue.catalogue import Product, products_from
from lightning_mem1.environments.webshop.catalogue.json_stream import list_entries, object_entries


class OfficialFiles:
    """The files of one catalogue.

    Attributes:
        items: ``items_shuffle*.json``, the products.
        ins: ``items_ins_v2*.json``, attributes and instructions by asin.
        human: ``items_human_ins*.json``, instructions written by people, None without one.
    """

    def __init__(self, folder: str | Path) -> None:
        """Find the files of a folder; each may be gzipped (``.json.gz``).

        Raises:
            FileNotFoundError: The folder or a needed file is missing.
            ValueError: Several files fit.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"catalogue must be a folder with items_shuffle*.json and items_ins_v2*.json, got {str(folder)!r}, "
                f"which is {'a file' if folder.exists() else 'missing'}: give the folder of the WebShop files"
            )
        self.items = _required(folder, "items_shuffle", "")
        suffix = _stem(self.items).removeprefix("items_shuffle")
        self.ins = _required(folder, "items_ins_v2", suffix)
        self.human = _find(folder, "items_human_ins", suffix)

    @property
    def paths(self) -> list[Path]:
        """All files that are there."""
        return [self.items, self.ins, *([self.human] if self.human else [])]

    def entries(self) -> Iterator[Any]:
        """Yield the entries of the list of products."""
        return list_entries(self.items)

    def annotations(self) -> Iterator[tuple[str, Any]]:
        """Yield asin and annotations."""
        return object_entries(self.ins)

    def human_instructions(self) -> Iterator[tuple[str, Any]]:
        """Yield asin and instructions written by people."""
        return object_entries(self.human) if self.human else iter(())


def load_products(folder: str | Path, *, skip_malformed: bool = False) -> list[Product]:
    """Read the official files of a folder into memory.

    Args:
        folder: Holds ``items_shuffle*.json``, ``items_ins_v2*.json`` and, for human goals,
            ``items_human_ins*.json``; each may be gzipped (``.json.gz``).
        skip_malformed: Skip and count malformed products instead of raising.

    Returns:
        The products in the order of the file.

    Raises:
        FileNotFoundError: The folder or a needed file is missing.
        ValueError: A file is cut short or of another shape, a product is malformed, several files fit, or no
            product is left.
    """
    files = OfficialFiles(folder)
    ins, human = dict(files.annotations()), dict(files.human_instructions())
    return products_from(files.entries(), ins, human, where=str(files.items), skip_malformed=skip_malformed)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _required(folder: Path, prefix: str, suffix: str) -> Path:
    path = _find(folder, prefix, suffix)
    if path is None:
        raise FileNotFoundError(
            f"catalogue folder {str(folder)!r} must hold {prefix}*.json or .json.gz, got none: "
            "download it with WebShop's setup.sh or leave the catalogue out to use the generated one"
        )
    return path


def _find(folder: Path, prefix: str, suffix: str) -> Path | None:
    """Return the folder's file ``<prefix>*.json[.gz]``, the one ending in `suffix` when there are several."""
    found = {_stem(path): path for path in sorted(folder.glob(f"{prefix}*.json*"), reverse=True)}
    found = {stem: path for stem, path in found.items() if path.name.endswith((".json", ".json.gz"))}
    if suffix and prefix + suffix in found:
        return found[prefix + suffix]
    if len(found) > 1:
        names = ", ".join(path.name for path in found.values())
        raise ValueError(f"expected one {prefix}*.json in {str(folder)!r}, got {names}: keep one of them in the folder")
    return next(iter(found.values()), None)
