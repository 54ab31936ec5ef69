"""`--agent pkg.module:entrypoint`: what is found, and what is said when nothing is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worker.runtime.agent_ref import AgentNotFound, load_agent

SOURCE = """
from livekit.agents import AgentServer, JobContext

async def entrypoint(ctx: JobContext) -> None: ...

def prewarm(proc): ...

def not_async(ctx): ...

server = AgentServer()

@server.rtc_session(agent_name="bot")
async def answer(ctx: JobContext) -> None: ...

bare = AgentServer()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of its own for each test, in the folder one is in; its name."""
    name = f"user_agent_{abs(hash(request.node.name)):x}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    return name


def test_a_function_is_found_with_its_prewarm(folder: str) -> None:
    agent = load_agent(f"{folder}:entrypoint")
    assert agent.entrypoint.__name__ == "entrypoint"
    assert agent.setup is not None


def test_an_agent_server_is_found_with_its_name(folder: str) -> None:
    agent = load_agent(f"{folder}:server")
    assert (agent.entrypoint.__name__, agent.agent_name) == ("answer", "bot")


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (":nothing", "has no 'nothing'"),
        (":not_async", "must be an async function"),
        (":bare", "has no @rtc_session"),
        ("", "pkg.module:server"),
        (":", "pkg.module:server"),
    ],
)
def test_a_wrong_name_says_what_to_change(folder: str, tail: str, says: str) -> None:
    with pytest.raises(AgentNotFound, match=says):
        load_agent(folder + tail)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(AgentNotFound, match="no module 'no_such_module'"):
        load_agent("no_such_module:entrypoint")


def test_an_import_error_inside_the_users_module_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_agent.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        load_agent("broken_agent:entrypoint")
