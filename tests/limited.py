"""Runs code in a process of its own that may not take more than some memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# The limit is beyond what the imports took: torch alone maps gigabytes that it never uses.
_LIMIT = """
import resource
from asif_lance.errors import AsifError, ImageError, SourceError
from asif_lance.encoders import decode_image
from asif_lance.ingest import read_source
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + {megabytes} * 2**20,) * 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
"""


def run_limited(code: str, *arguments: object, megabytes: int) -> str:
    """What the code prints; it fails if the code fails or is killed.

    The code has `peak()`, the most memory the process took, in MiB, and `before`, the same when it
    began.
    """
    whole = _LIMIT.format(megabytes=megabytes) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
