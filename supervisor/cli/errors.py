"""What ends a command: one line that says what is wrong and what to do."""

from __future__ import annotations


class CliError(Exception):
    """The command failed. The text is one line for people; `code` is the exit code (1 failed, 2 wrong usage)."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
