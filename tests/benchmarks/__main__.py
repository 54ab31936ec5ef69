"""`python -m tests.benchmarks [name …]`: run every `bench_*.py` here (or the named ones), one after the other.

Each prints its numbers beside a floor or a peer measured in the same run; nothing is asserted about time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(wanted: list[str]) -> int:
    """Exit code 1 when one of them failed to run, 2 for a name that does not exist."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    chosen = [name if name.startswith("bench_") else f"bench_{name}" for name in wanted] or known
    if unknown := [name for name in chosen if name not in known]:
        sys.stderr.write(f"there is no {unknown[0]}; choose of {', '.join(known)}\n")
        return 2
    failed: list[str] = []
    for name in chosen:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        # A process of its own each: what one leaves in caches and heaps must not help or slow the next.
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
