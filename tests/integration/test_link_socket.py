"""The container's socket as a file: where it is made, whose it is, what is left of it."""

from __future__ import annotations

import asyncio
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.link_fleet import alone, job
from worker.link import ContainerLink, LinkSettings


def _mode(path: str) -> int:
    """The mode of a file, 0 when there is none."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return 0


async def test_the_socket_is_for_this_user_alone_and_is_removed(fleet: str):
    async with alone(fleet) as link:
        path = link.socket_path
        mode = _mode(path)
        assert stat.S_ISSOCK(mode)
        assert mode & 0o077 == 0
    assert _mode(path) == 0
    assert _mode(str(Path(path).parent)) == 0


async def test_a_long_tmpdir_makes_the_socket_of_a_container_no_longer(
    fleet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with alone(fleet) as link, job(link) as caller:
        assert caller.connected
        private = Path(link.socket_path).parent
        assert private.stat().st_mode & 0o077 == 0
    assert not private.exists()
    assert not list(long.iterdir())


async def test_a_socket_left_behind_by_a_killed_container_is_taken_over(fleet: str, tmp_path: Path):
    path = str(tmp_path / "link.sock")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        f"import socket,os; s=socket.socket(socket.AF_UNIX); s.bind({path!r}); os.kill(os.getpid(), 9)",
    )  # fmt: skip
    await child.wait()
    assert stat.S_ISSOCK(_mode(path))
    link = ContainerLink(LinkSettings(fleet=fleet, worker="w1", socket=path))
    await link.start()
    async with job(link) as caller:
        assert caller.connected
    await link.aclose()


async def test_a_path_that_is_too_long_or_taken_is_said_at_start(fleet: str, tmp_path: Path):
    with pytest.raises(ValueError, match="shorter"):
        await ContainerLink(LinkSettings(fleet=fleet, socket="/tmp/" + "x" * 120)).start()
    taken = tmp_path / "file"
    taken.write_text("not a socket")
    with pytest.raises(OSError, match="in use"):
        await ContainerLink(LinkSettings(fleet=fleet, socket=str(taken))).start()
    assert taken.read_text() == "not a socket"
