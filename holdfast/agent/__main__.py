"""``python -m holdfast.agent CONFIG``: the agent without the command line around it."""

from __future__ import annotations

import sys
from pathlib import Path

from holdfast.agent.daemon import run
from holdfast.config.load import agent_config
from holdfast.errors import HoldfastError
from holdfast.reloading import outlive


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m holdfast.agent CONFIG", file=sys.stderr)
        return 2
    path = Path(sys.argv[1])
    try:
        outlive()
        run(agent_config(path), path)
    except HoldfastError as error:
        print(f"holdfast agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
