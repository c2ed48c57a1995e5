"""What was left out of a file: how often each reason came up, and in which row first."""

from __future__ import annotations

from collections import Counter


class Findings(Counter[str]):
    """Counts reasons, and remembers the row of the first time; readers say which row they are at.

    Attributes:
        row: The row that is read now, from 1: a line, or an entry of a table.
        num_rows: Rows so far.
        first: Reason -> row where it came up first.
        names: Names of the first row's fields.
    """

    def __init__(self) -> None:
        super().__init__()
        self.row = self.num_rows = 0
        self.first: dict[str, int] = {}
        self.names: tuple[str, ...] = ()

    def at(self, row: int) -> None:
        """Say that the next row is read: its number."""
        self.row = row
        self.num_rows += 1

    def __setitem__(self, reason: str, number: int) -> None:
        if number > 0:
            self.first.setdefault(reason, self.row)
        super().__setitem__(reason, number)

    def summary(self) -> str:
        """``no answer 2 (row 3), not JSON 1 (row 9)``: of several rows the first is named; empty when all is well."""
        return ", ".join(
            f"{reason} {number} ({'row' if number == 1 else 'first row'} {self.first[reason]})"
            for reason, number in self.items()
            if number
        )
