"""Stand-ins for the providers, speaking their real wire protocols, and callers who speak and listen."""

from __future__ import annotations

from worker.simulator.answers import answer_for
from worker.simulator.faults import Fault, FaultError
from worker.simulator.ledger import PROBE_MARK
from worker.simulator.server import BASE_PATHS, SimulatorServer
from worker.simulator.stand import Options

__all__ = ["BASE_PATHS", "PROBE_MARK", "Fault", "FaultError", "Options", "SimulatorServer", "answer_for"]
