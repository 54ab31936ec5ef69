"""`SUPERVISOR_STATE_DIR`: what must outlive Redis, as two files that are replaced whole or not at all.

kept.bin:   overrides, policies, limits, tokens; on the disk (fsync) before a change is acknowledged.
engine.bin: the engine's state, once a second.
Each begins with a version byte and the BLAKE2b of the rest: half a file, or another build's, is no file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

_VERSION: Final = b"\x01"
_DIGEST: Final = 16
MAX_FILE_BYTES: Final = 64 * 1024 * 1024


class StateDirError(OSError):
    """The folder cannot be written to (full, gone, not ours); nothing that was there is lost."""


class StateDir:
    """Blocking file work; call it from a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, data: bytes) -> None:
        """Replace the file: write beside it, fsync, rename, fsync the folder. Raises `StateDirError`."""
        digest = hashlib.blake2b(data, digest_size=_DIGEST).digest()
        temporary: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)
            with os.fdopen(fd, "wb") as out:
                out.write(_VERSION + digest + data)
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(self.folder / name)
            temporary = None
            self._sync_folder()
        except OSError as exc:
            raise StateDirError(exc.errno, exc.strerror or "cannot be written") from None
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()

    def _sync_folder(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes | None:
        """The file's content; None when there is none, or it is not whole."""
        try:
            with (self.folder / name).open("rb") as source:
                raw = source.read(MAX_FILE_BYTES + 1)
        except OSError:
            return None
        body = raw[1 + _DIGEST :]
        if len(raw) > MAX_FILE_BYTES or raw[:1] != _VERSION:
            return None
        if hashlib.blake2b(body, digest_size=_DIGEST).digest() != raw[1 : 1 + _DIGEST]:
            return None
        return body
