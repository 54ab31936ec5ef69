"""What `worker check` looks at. Each finding is one line: what was looked at, whether it is well, what to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis.asyncio

from supervisor.wire.keys import Keys
from worker.runtime.agent_ref import SHIPPED, AgentNotFound, load_agent
from worker.settings import WorkerSettings, WrongSetting

REDIS_TIMEOUT_S = 3.0
PROBE_BUDGET_MS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def run_checks(settings: WorkerSettings, agent: str, *, probe: bool) -> list[Finding]:
    """All findings, in the order in which one would mend them. Settings themselves were read already."""
    found = [
        Finding("settings", True, f"fleet {settings.fleet}, worker {settings.id}"),
        _agent(agent),
        await _redis(settings),
    ]
    found.append(_keys(settings, agent))
    if probe:
        found += [finding async for finding in _probes(settings)]
    return found


def _agent(ref: str) -> Finding:
    try:
        load_agent(ref)
    except AgentNotFound as exc:
        return Finding("agent", False, str(exc))
    except Exception as exc:  # noqa: BLE001  # whatever the user's module raises is what is wrong with it
        return Finding("agent", False, f"{ref} cannot be imported: {type(exc).__name__}")
    return Finding("agent", True, ref)


async def _redis(settings: WorkerSettings) -> Finding:
    if settings.redis_url is None:
        return Finding(
            "redis", True, "REDIS_URL is not set: calls are guarded, but alone and not with the fleet"
        )
    client = cast("Any", redis.asyncio.Redis).from_url(
        settings.redis_url.get_secret_value(), socket_timeout=REDIS_TIMEOUT_S
    )
    try:
        await client.ping()
        known = await client.hlen(Keys(settings.fleet)("strategy"))
    except (redis.RedisError, OSError) as exc:
        return Finding("redis", False, f"does not answer ({type(exc).__name__}); see REDIS_URL")
    finally:
        await client.aclose()
    return Finding(
        "redis", True, f"answers; strategies for {max(0, known - 1)} targets in fleet {settings.fleet}"
    )


def _keys(settings: WorkerSettings, agent: str) -> Finding:
    if agent != SHIPPED:
        return Finding("providers", True, "the agent brings its own; --probe asks those of the settings")
    from worker.providers import start_notes  # heavy; the shipped agent was imported by now

    try:
        notes = start_notes(settings)
    except WrongSetting as exc:
        return Finding("providers", False, str(exc))
    return Finding(
        "providers", True, "; ".join(notes) or "keys are set; --probe asks the providers themselves"
    )


async def _probes(settings: WorkerSettings) -> AsyncIterator[Finding]:
    from livekit.agents.utils import http_context  # heavy, and only for probes

    from supervisor.wire.vocabulary import Phase, Role
    from worker.guard.evidence import fault_of
    from worker.guard.names import children_of, provider_of
    from worker.guard.probe import Probed, probe_llm
    from worker.guard.stt_probe import probe_stt
    from worker.guard.tts_probe import probe_tts
    from worker.providers import build_providers

    async with http_context.open():
        try:
            providers = build_providers(settings)
        except WrongSetting as exc:
            yield Finding("probes", False, str(exc))
            return
        plans: tuple[Any, ...] = (
            (Role.STT, providers.stt, probe_stt),
            (Role.LLM, providers.llm, probe_llm),
            (Role.TTS, providers.tts, probe_tts),
        )
        for role, plugins, ask in plans:
            for child in children_of(role, plugins):
                try:
                    async with asyncio.timeout(PROBE_BUDGET_MS / 1000 + 5):
                        probed = await ask(child.plugin, PROBE_BUDGET_MS)
                except Exception as exc:  # noqa: BLE001  # a plugin that breaks is what is to be found
                    probed = Probed(fault_of(exc, provider_of(child.plugin), Phase.CONNECT))
                fault = probed.fault
                detail = (
                    f"first output after {probed.first_output_ms} ms"
                    if fault is None
                    else f"{fault.kind.value} {fault.message}"
                )
                yield Finding(child.target, fault is None, detail)
        await providers.aclose()
