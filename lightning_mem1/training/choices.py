"""Words that settings of training choose from."""

from typing import Literal

Unit = Literal["token", "turn", "trajectory"]
KLEstimator = Literal["k1", "k2", "k3"]
OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"]
ScheduleName = Literal[
    "constant", "linear", "cosine", "cosine_with_min_lr", "polynomial", "inverse_sqrt", "warmup_stable_decay"
]
