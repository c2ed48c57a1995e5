"""The memory modes of the package, a file each, and the words for them."""

from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.context.modes.full import Full
from lightning_mem1.context.modes.mem1 import Mem1
from lightning_mem1.context.modes.none import NoHistory
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.modes.summary import Summary
from lightning_mem1.context.modes.window import Window

# Words of model.memory, in the order of error messages and tests.
_MODES = (Mem1, Full, Window, NoHistory, Summary, Amem, Recorded)
MODES: dict[str, type[MemoryMode]] = {mode.word: mode for mode in _MODES}
