"""Calls cocotb's runner in a process of its own:
``python -m celosia_sim.simulators.cocotb_call CALL.json``.

The runner takes its environment from its process, and a simulator that it has started cannot be
stopped from within. CALL.json: {"method", "arguments"}.
"""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Carry out the call; exit status 1 with the reason on stdout where the runner fails."""
    from cocotb_tools.runner import get_runner

    call = json.loads(Path(path).read_text())
    try:
        getattr(get_runner("icarus"), call["method"])(**call["arguments"])
    except (RuntimeError, SystemExit) as problem:       # which of them depends on its caller
        print(problem)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
