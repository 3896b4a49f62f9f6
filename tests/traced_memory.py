"""How much Python holds at most while it runs some lines, in a process that does nothing else."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_FRAME = """
import tracemalloc
{begin}
tracemalloc.start()
{lines}
print(tracemalloc.get_traced_memory()[1])
"""


def measure_peak(begin: str, lines: str, *arguments: object) -> int:
    """Bytes at the peak of the lines; `begin` imports what they need, `sys.argv` has arguments.

    Threads that other tests leave behind would be counted, too, in their process.
    """
    code = _FRAME.format(begin=textwrap.dedent(begin), lines=textwrap.dedent(lines))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
