"""The memory modes of the package, a file each, and the words for them."""

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.compaction import Compaction
from lightning_mem1.context.modes.edit import Edit
from lightning_mem1.context.modes.fold import Fold
from lightning_mem1.context.modes.full import Full
from lightning_mem1.context.modes.masked import Masked
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.modes.multiscale import MultiScale
from lightning_mem1.context.modes.none import NoHistory
from lightning_mem1.context.modes.recall import Recall
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.modes.summary import Summary
from lightning_mem1.context.modes.window import Window

_ALL: tuple[type[MemoryMode], ...] = (
    *(Mem1, Full, Window, NoHistory, Summary, Amem),
    *(Compaction, Masked, Fold, MultiScale, Edit, Recall, Recorded),
)
# Words of model.memory, in the order of error messages and tests.
MODES: dict[str, type[MemoryMode]] = {mode.word: mode for mode in _ALL}
