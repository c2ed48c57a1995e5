"""Numbers that others published, each with its source, to compare with one's own.

They come from other models, data and machines, and the public MEM1 code measures otherwise: its peak leaves out the
prompt, counts the internal state twice and skips trajectories without a right answer. They are for orientation.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "arXiv 2506.15841"


@dataclass(frozen=True)
class Published:
    """One published row; None where nothing was published.

    Attributes:
        task: ``qa`` or ``webshop``.
        model: What was measured.
        objectives: Objectives per task.
        source: Paper and table.
        em: Sum of exact match over the objectives.
        f1: Sum of F1 over the objectives.
        peak_tokens_without_prompt: Tokens.
        seconds: Per trajectory.
        reward: Reward, 0-1.
        dependency: Pairs of tokens.
    """

    task: str
    model: str
    objectives: int
    source: str
    em: float | None = None
    f1: float | None = None
    peak_tokens_without_prompt: float | None = None
    seconds: float | None = None
    reward: float | None = None
    dependency: float | None = None


def _table_1(model: str, objectives: int, em: float, f1: float | None, peak: float, seconds: float | None) -> Published:
    return Published("qa", model, objectives, f"{PAPER}, table 1", em, f1, peak, seconds)


def _webshop(model: str, reward: float, *rest: float) -> Published:
    peak, dependency, seconds = rest or (None, None, None)
    return Published(
        "webshop",
        model,
        1,
        f"{PAPER}, WebShop",
        reward=reward,
        peak_tokens_without_prompt=peak,
        dependency=dependency,
        seconds=seconds,
    )


PUBLISHED = (
    _table_1("MEM1-QA 7B, trained on 2", 2, 0.709, 0.838, 640, 6.49),
    _table_1("MEM1-QA 7B, trained on 2", 8, 1.87, 2.31, 801, 8.68),
    _table_1("MEM1-QA 7B, trained on 2", 16, 1.97, 2.39, 1040, 8.70),
    _table_1("Qwen2.5-14B-Instruct, full context", 2, 0.732, 0.902, 1560, 5.49),
    _table_1("Qwen2.5-14B-Instruct, full context", 8, 1.55, 1.87, 4470, 16.2),
    _table_1("Qwen2.5-14B-Instruct, full context", 16, 0.567, 0.703, 3840, 29.7),
    _table_1("Qwen2.5-7B-Instruct, truncated", 2, 0.262, None, 828, None),
    _table_1("Qwen2.5-7B-Instruct, truncated", 8, 0.97, None, 1180, None),
    _table_1("Qwen2.5-7B-Instruct, truncated", 16, 0.396, None, 1330, 22.1),
    _table_1("Qwen2.5-7B-Instruct, A-MEM", 2, 0.286, None, 1410, None),
    _table_1("Qwen2.5-7B-Instruct, A-MEM", 8, 1.13, None, 1860, None),
    _table_1("Qwen2.5-7B-Instruct, A-MEM", 16, 0.730, None, 1880, 91.2),
    _table_1("Search-R1", 2, 0.452, None, 1300, None),
    _table_1("Search-R1", 8, 0.064, None, 2470, None),
    _table_1("Search-R1", 16, 0.009, None, 2090, 4.75),
    _table_1("Search-R1, retrained on 2", 16, 0.520, 0.647, 2480, 23.4),
    _table_1("DeepResearcher", 2, 0.536, 0.650, 2200, 4.01),
    _table_1("DeepResearcher", 8, 0.73, None, 5180, None),
    _table_1("DeepResearcher", 16, 0.071, 0.106, 4890, 15.8),
    *(
        Published("qa", f"MEM1 7B, {how}", k, f"{PAPER}, RL against SFT", em)
        for how, scores in (
            ("RL", (0.410, 0.709, 0.976, 1.120, 1.630, 1.870, 1.900)),
            ("SFT", (0.300, 0.433, 0.648, 0.626, 0.088, 0.027, 0.000)),
        )
        for k, em in zip((1, 2, 3, 4, 6, 8, 16), scores, strict=True)
    ),
    _webshop("MEM1-WebShop 7B", 0.7087, 810, 150_000, 2.61),
    _webshop("AgentLM-7B", 0.6360, 2240, 280_000, 3.91),
    _webshop("AgentLM-13B", 0.7080, 2360, 300_000, 5.23),
    _webshop("GPT-4o", 0.2548),
)


def published(task: str, objectives: int) -> list[Published]:
    """The rows of a kind of task at a number of objectives, as they are in the paper."""
    return [row for row in PUBLISHED if (row.task, row.objectives) == (task, objectives)]
