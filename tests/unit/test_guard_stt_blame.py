"""Who is to blame for a recogniser's connection that ends while nobody speaks."""

from __future__ import annotations

import pytest

from supervisor.wire.vocabulary import FaultKind
from worker.guard.faults import Fault
from worker.guard.stt_state import MUTED_S, blame


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.CONNECT, FaultKind.SERVER])
def test_a_service_may_hang_up_on_a_muted_line(kind: FaultKind) -> None:
    assert blame(Fault(kind), MUTED_S + 1).kind is FaultKind.LOCAL
    assert blame(Fault(kind), MUTED_S - 1).kind is kind


@pytest.mark.parametrize(
    "kind", [FaultKind.AUTHENTICATION, FaultKind.QUOTA, FaultKind.RATE_LIMIT, FaultKind.OVERLOADED]
)
def test_what_it_says_of_key_limits_and_load_is_true_however_quiet_it_was(kind: FaultKind) -> None:
    assert blame(Fault(kind), MUTED_S + 100).kind is kind
