"""The header of a model card, as the hub reads it, and the licence that a folder's card states."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

TAGS = ("lightning_mem1", "reinforcement-learning", "agent")


def front_matter(
    library: str,
    licence: str | None,
    base: str | None = None,
    relation: str = "finetune",
    results: Iterable[tuple[str, str, float]] = (),
    name: str = "policy",
) -> str:
    """The YAML between two lines of ``---``.

    Args:
        library: transformers or peft.
        licence: A name that the hub knows, such as mit; None to state none.
        base: The base model on the hub; None where it is none of the hub's.
        relation: What it is to its base: finetune or adapter.
        results: What was measured: (tasks, metric, value).
        name: Of the model, for its results.
    """
    from huggingface_hub import EvalResult, ModelCardData

    measured = [
        EvalResult(
            task_type="text-generation",
            dataset_type=tasks,
            dataset_name=f"validation tasks of {tasks}",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for tasks, metric, value in results
    ]
    data = ModelCardData(
        base_model=base,
        base_model_relation=relation if base else None,
        library_name=library,
        license=licence,
        pipeline_tag="text-generation",
        tags=list(TAGS),
        model_name=name if measured else None,
        eval_results=measured or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def licence_of(folder: str) -> str | None:
    """The licence that the card in a folder states; None where there is no card, or it states none."""
    from huggingface_hub import ModelCard

    card = Path(folder) / "README.md"
    if not card.is_file():
        return None
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    except ValueError:  # a header that is no YAML
        return None
    return licence if isinstance(licence, str) else None
