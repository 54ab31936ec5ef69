"""`ErrorRecoveryManager`: what happens to one session when its services fail, and what its caller hears of it.

The flow: already recoverable? → role and kind → count against `max_retries` → decision (`decisions.decide`) → the
user's handlers → words or sound → over the limit the final message and then `on_exhausted`. `watch.SessionWatch`
says what happened, `Speaker` speaks; this class joins them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, cast

from livekit.agents import AgentSession
from livekit.agents.job import get_job_context
from livekit.agents.utils import shortuuid

from supervisor.wire.vocabulary import FaultKind, Role
from worker.guard.routing import GuardOptions
from worker.link.api import Link
from worker.recovery.counters import ErrorCounters, Limits
from worker.recovery.from_settings import from_environment, options_from, usable_error_audio
from worker.recovery.guard_session import SessionGuard, need_loop
from worker.recovery.handlers import Handler, Handlers
from worker.recovery.language import SpokenLanguage
from worker.recovery.lines import Lines
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import RecoveryOptions
from worker.recovery.own_voice import OwnVoice, VoiceCache
from worker.recovery.phrases import FallbackMessages
from worker.recovery.responder import Responder
from worker.recovery.sounds import Sounds
from worker.recovery.speaker import Speaker
from worker.recovery.stats import SHOWN, ErrorStats, SessionReport, all_faults, error_stats
from worker.recovery.voice_prep import VoicePrep
from worker.recovery.watch import SessionWatch
from worker.settings import WorkerSettings

PUBLISH_EVERY_S: Final = 5.0
FAULT_AGE_S: Final = 10.0
_ATTRIBUTE: Final = "_livekit_supervisor_recovery"


def manager_of(session: AgentSession[Any]) -> ErrorRecoveryManager | None:
    """The manager that takes care of a session now."""
    found = getattr(session, _ATTRIBUTE, None)
    return found if isinstance(found, ErrorRecoveryManager) and not found.over else None


class ErrorRecoveryManager:
    """Recovery for one session: `ErrorRecoveryManager(max_retries=5).attach(session)`, or `setup_error_handling`.

    max_retries: errors in a row that callers get an apology for, one number or by role and kind (see
    `ErrorCounters`). custom_audio_path: a sound file (wav, ogg, mp3, flac) for when the voice is gone. More
    options: `RecoveryOptions`. What is not given comes from `settings`, else from the environment (WORKER_*).
    Raises `AudioFileError` for a file that cannot be used, ValueError for options.
    """

    def __init__(
        self,
        max_retries: Limits | None = None,
        custom_audio_path: str | Path | None = None,
        *,
        settings: WorkerSettings | None = None,
        options: RecoveryOptions | None = None,
        **given: Any,
    ) -> None:
        settings = settings or from_environment()
        self.options = options or options_from(settings, given)
        self.counters = ErrorCounters(settings.max_retries if max_retries is None else max_retries)
        self._messages = FallbackMessages(self.options.language or "en")
        self.handlers = Handlers(self.options.handler_timeout_s)
        cache = Path(self.options.cache_dir).expanduser() if self.options.cache_dir else None
        self.own_voice = OwnVoice(VoiceCache(cache))
        self.sounds = Sounds(
            self.own_voice,
            custom=custom_audio_path or usable_error_audio(settings),
            custom_final=self.options.final_audio_path,
            language=self.fallback_messages.spoken_language,
        )
        self.session_id = ""
        self.link = ObservedLink()
        self.session: AgentSession[Any] | None = None
        self._lines = Lines("", emoji=self.options.emoji)
        self._guard: SessionGuard | None = None
        self._watch: SessionWatch | None = None
        self._speaker: Speaker | None = None
        self._responder: Responder | None = None
        self._settings = settings
        self._started_at_ms = self._ended_at_ms = 0
        self._failed = False
        self._opened: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began = False
        self._voice: VoicePrep | None = None
        self._preparing: asyncio.Task[Any] | None = None
        self._language = SpokenLanguage()

    # ------------------------------------------------------------------ for users

    @property
    def fallback_messages(self) -> FallbackMessages:
        """What is said, by role and kind; may be changed, or set as a whole, at any time."""
        return self._messages

    @fallback_messages.setter
    def fallback_messages(self, messages: Mapping[Any, list[str]]) -> None:
        self._messages.replace(messages)

    def on(self, name: str | Role | FaultKind, handler: Handler | None = None) -> Any:
        """`@manager.on("rate_limit")`, `on("llm")`, `on("llm.rate_limit")`, `on("error")`: see `handlers`."""
        return self.handlers.on(name, handler)

    def get_error_stats(self) -> ErrorStats:
        """`{'llm': 2, 'tts': 0, 'stt': 1}` and more under other keys: see `ErrorStats`."""
        return error_stats(self.counters, self.link.by_kind, self.report())

    def report(self) -> SessionReport:
        """The session so far; after its end the final report."""
        watch, responder = self._watch, self._responder
        return SessionReport(
            session=self.session_id,
            started_at_ms=self._started_at_ms,
            ended_at_ms=self._ended_at_ms,
            turns=watch.turns if watch else 0,
            session_errors={role.value: self.counters.total[role] for role in SHOWN},
            faults=all_faults(self.link.by_kind, self.counters.by_kind),
            failovers=self.link.failovers,
            apologies=responder.apologies if responder else 0,
            final_messages=responder.final_messages if responder else 0,
            longest_silence_s=round(watch.silence.longest_s, 3) if watch else 0.0,
            outcome=self._outcome(),
            targets=dict(self.link.targets),
        )

    def attach(
        self,
        session: AgentSession[Any],
        *,
        link: Link | None = None,
        settings: WorkerSettings | None = None,
    ) -> ErrorRecoveryManager:
        """Take care of a session, started or not. A manager has one session, once: another one is a ValueError."""
        if self.session is not None and (self.session is not session or self.over):
            raise ValueError("this manager has a session already; make one for each")
        if link is not None:
            self.link.attach(link)
        if self.session is session:
            return self
        if getattr(session, "_activity", None) is not None:
            need_loop()  # before anything is changed
        before = manager_of(session)
        if before is not None:
            # Two that both apologise would be worse than either: the newer one is what the user asked for last.
            self._lines.warning("set_up_twice", "another manager takes care of this session from now on")
            before.let_go()
            if self.link.inner is None and before.link.inner is not None:
                self.link.attach(before.link.inner)
        self.session, self._settings = session, settings or self._settings
        setattr(session, _ATTRIBUTE, self)
        try:
            self._take_care(session, self._settings)
        except BaseException:
            # Half set up is worse than not at all: the next try must not be given this one.
            delattr(session, _ATTRIBUTE)
            if self._watch is not None:
                self._watch.end()
            if self._guard is not None:
                self._guard.restore()
            self.session = None
            raise
        return self

    def _take_care(self, session: AgentSession[Any], s: WorkerSettings) -> None:
        job = get_job_context(required=False)
        self.session_id = job.job.id if job is not None and job.job.id else shortuuid("session_")
        self._lines = Lines(self.session_id, emoji=self.options.emoji)
        self._started_at_ms = time.time_ns() // 1_000_000
        self._ended_at_ms = 0
        self._guard = guard = SessionGuard(
            session,
            self.link,
            session_id=self.session_id,
            started_at_ms=self._started_at_ms,
            options=GuardOptions(latency_budget_ms=s.latency_budget_ms, hedge=s.hedge),
            continue_answers=s.continue_answers,
            voices=self.options.voice_choice,
        )
        self._speaker = Speaker(session, guard, self.sounds, add_to_chat_ctx=self.options.add_to_chat_ctx)
        self._watch = SessionWatch(session, self, guard, self.link, self._speaker, self.options)
        self._responder = Responder(
            session,
            self._watch,
            self._speaker,
            counters=self.counters,
            messages=self.fallback_messages,
            handlers=self.handlers,
            options=self.options,
            lines=self._lines,
            spawn=self._spawn,
            source=self._source,
        )
        if self.options.guard:
            guard.install()
        self._choose_language(guard, s)
        self._voice = VoicePrep(
            session,
            guard,
            self._speaker,
            self._watch,
            self.link,
            self.fallback_messages,
            self.own_voice,
            self.options.on_exhausted,
        )
        guard.voice_changed = self._prepare_voice
        self._watch.begin()
        if getattr(session, "_activity", None) is not None:
            self.looked()

    @property
    def over(self) -> bool:
        """Whether its session has closed, or another manager has it."""
        return self._ended_at_ms > 0

    def let_go(self) -> None:
        """Stop at once: the session is as it was before. What takes time (closing links) is done later."""
        self._ended_at_ms = self._ended_at_ms or time.time_ns() // 1_000_000
        if self._watch is not None:
            self._watch.end()
        if self._guard is not None:
            self._guard.restore()
        # No loop runs yet: then there is nothing that takes time either.
        with contextlib.suppress(RuntimeError):
            # Kept by us, not among our tasks: it ends those.
            self._closing_task = asyncio.get_running_loop().create_task(self.aclose(), name="recovery-close")

    async def aclose(self) -> None:
        """Let go of the session: it is as it was before. Called by itself when the session closes."""
        self._ended_at_ms = self._ended_at_ms or time.time_ns() // 1_000_000
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        await self.handlers.aclose()
        if self._watch is not None:
            self._watch.end()
        if self._guard is not None:
            await self._guard.release()
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    # ------------------------------------------------------------------ what the watch tells

    def looked(self) -> None:
        """The session's loop runs: the first time, what needs a loop is started."""
        if self._began:
            return
        self._began = True
        if self.link.inner is None:
            self._spawn(self._open_link(), "recovery-link")
        self._spawn(self._publish(), "recovery-publish")
        self._prepare_voice()

    def already_recoverable(self, role: Role, kind: FaultKind) -> None:
        """Somebody else takes care of it."""
        self._lines.info(
            "recoverable", f"{role.value} error is already recoverable", role=role.value, kind=kind.value
        )

    def success(self, role: Role) -> None:
        """A service did its work for the caller."""
        if self.counters.success(role):
            self._lines.info(
                "success", f"{role.value} works again, its error count is reset", role=role.value
            )

    def spoke_language(self, language: str) -> None:
        """The language of the caller's last words, as the recogniser has it."""
        heard = self._language.heard(language)
        if heard and heard != self.fallback_messages.language:
            self._set_language(heard)
            self._prepare_voice()

    def error(self, role: Role, kind: FaultKind, *, counts: bool = True) -> None:
        """An error that a caller waits behind."""
        if self._responder is not None:
            self._responder.error(role, kind, counts=counts)

    def closed(self, event: Any) -> None:
        """The session is over."""
        self._ended_at_ms = time.time_ns() // 1_000_000
        self._failed = event.error is not None
        report = self.report()
        self.link.session(report.info(self.link.worker))
        stats = self.get_error_stats()
        fields = {name: value for name, value in report.as_dict().items() if name != "session"}
        self._lines.info("stats", f"Session error statistics: {dict(stats)}", **fields)
        if total := stats["total"]:
            self._lines.info("total", f"Total errors encountered: {total}", total=total)
        self.let_go()  # at once: the session may be started again before our tasks have ended

    # ------------------------------------------------------------------ beside the call

    async def _open_link(self) -> None:
        from worker.link.connect import connect  # a session inside a worker brings its link

        try:  # without any setting set the link reads what it needs itself
            opened = await connect(self._settings if self._settings.model_fields_set else None)
        except ValueError as exc:
            self._lines.warning("stats", "no link to a supervisor, guarding alone", error=type(exc).__name__)
            return
        self._opened = opened
        self.link.attach(opened)

    async def _publish(self) -> None:
        while True:
            self.link.session(self.report().info(self.link.worker))
            await asyncio.sleep(PUBLISH_EVERY_S)

    # ------------------------------------------------------------------ inside

    def _choose_language(self, guard: SessionGuard, settings: WorkerSettings) -> None:
        given = [self.options.language, settings.language if "language" in settings.model_fields_set else ""]
        language = self._language.choose(given, [guard.plugin(Role.TTS), guard.plugin(Role.STT)])
        if language:
            self._set_language(language)

    def _prepare_voice(self) -> None:
        """For the voice and the language that are in use now; what was begun for others ends."""
        if not (self.options.own_voice and self._began and self._voice):
            return
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = self._spawn(self._voice.run(), "recovery-own-voice")

    def _set_language(self, language: str) -> None:
        self.fallback_messages.language = language
        self.sounds.language = self.fallback_messages.spoken_language

    def _outcome(self) -> str:
        responder = self._responder
        if responder is not None and responder.outcome:
            return responder.outcome
        if self._failed:
            return "failed"
        if responder is not None and responder.final_messages:
            return "gave_up"  # `stay`: nobody ended the call, but the caller was told to call again
        return "recovered" if responder is not None and responder.apologies else "ok"

    def _source(self, role: Role) -> str:
        """Which target an error came from: the one that failed last, else the one that served last."""
        noted = self.link.last_fault(role, time.monotonic() - FAULT_AGE_S)
        return noted.target if noted is not None else self.link.targets.get(role.value, "unknown")

    def _closing(self) -> bool:
        session = cast("Any", self.session)
        return session is None or bool(session._is_closing())

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        try:
            loop = need_loop()
        except RuntimeError:
            work.close()
            raise
        task = loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._lines.warning("gave_up", "recovery failed", error=type(exc).__name__, task=task.get_name())
