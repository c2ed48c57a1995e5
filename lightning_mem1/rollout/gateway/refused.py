"""What a call is answered with that cannot be carried out."""

from __future__ import annotations


class Refused(Exception):
    """A call that is answered with an error.

    Attributes:
        status: Of HTTP.
        code: What clients look at, such as ``context_length_exceeded``.
    """

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
