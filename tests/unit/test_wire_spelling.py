"""Variables written wrongly are noticed, other programs' are left alone."""

from __future__ import annotations

import pytest

from supervisor.wire.spelling import misspelt

KNOWN = ["SUPERVISOR_HOST", "SUPERVISOR_PORT", "SUPERVISOR_STATE_DIR", "SUPERVISOR_URL", "REDIS_URL"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SUPERVISOR_STATEDIR", "SUPERVISOR_STATE_DIR"),
        ("SUPERVISOR_PROT", "SUPERVISOR_PORT"),
        ("SUPERVISOR_HOST_", "SUPERVISOR_HOST"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert misspelt([name], "SUPERVISOR_", KNOWN) == [
        f"{name}: there is no such setting; did you mean {meant}?"
    ]


# What supervisord gives to its programs, and Kubernetes for a service that is called supervisor.
@pytest.mark.parametrize(
    "name",
    [
        "SUPERVISOR_ENABLED", "SUPERVISOR_PROCESS_NAME", "SUPERVISOR_GROUP_NAME", "SUPERVISOR_SERVER_URL",
        "SUPERVISOR_SERVICE_HOST", "SUPERVISOR_SERVICE_PORT", "SUPERVISOR_PORT_8080_TCP", "REDIS_URI", "PATH",
    ],
)  # fmt: skip
def test_what_is_not_ours_is_left_alone(name: str) -> None:
    assert misspelt([name, *KNOWN], "SUPERVISOR_", KNOWN) == []
