"""A page and an HTTP API over one database: needs the extra `serve`.

Promises: every answer names the version that gave it; new versions answer without a restart, and
nothing answers from a forgotten pair once its receipt is there. Safe by default: loopback, the
right to read, limits on everything that a request can send. Never writes what is uploaded, and
never tells a path of the machine. `service.tools` is imported by name: it needs the extra `mcp`.
"""

from typing import TYPE_CHECKING

from asif_lance.on_demand import import_on_demand

if TYPE_CHECKING:
    from asif_lance.service.app import create_app
    from asif_lance.service.rights import Right, Token, make_token, read_tokens
    from asif_lance.service.running import run_service
    from asif_lance.service.service import Service
    from asif_lance.service.settings import ServiceSettings
else:
    __getattr__ = import_on_demand(
        __name__,
        {
            "app": "create_app",
            "rights": "Right Token make_token read_tokens",
            "running": "run_service",
            "service": "Service",
            "settings": "ServiceSettings",
        },
    )

# fmt: off
__all__ = [
    "Right", "Service", "ServiceSettings", "Token", "create_app", "make_token", "read_tokens",
    "run_service",
]
# fmt: on
