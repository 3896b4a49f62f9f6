"""Runs a service until it is told to stop, and then finishes what was asked."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable

import uvicorn

from asif_lance.errors import StorageError
from asif_lance.service.app import create_app
from asif_lance.service.service import Service
from asif_lance.service.settings import ServiceSettings

#: Bytes of a request's line and headers, beyond which the connection is closed without an answer.
LONGEST_HEAD = 2**20

#: Seconds that requests have to end once the service was told to stop.
GRACE_SECONDS = 30


def run_service(settings: ServiceSettings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: see `ServiceSettings`.
        announce: is told the address once it can be asked.

    Raises:
        DatabaseError: there is none, or it cannot be used.
        StorageError: the address is taken, or may not be listened at.
    """
    listener = _listen(settings.host, settings.port)
    with listener:
        service = Service(settings)
        service.operations.models.load_encoders()
        config = uvicorn.Config(
            create_app(service),
            http="h11",  # whose limit for heads is set below, whatever else is installed
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=LONGEST_HEAD,
        )
        _log_to_stderr()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        announce(f"http://{host}:{listener.getsockname()[1]}/")
        with contextlib.suppress(KeyboardInterrupt):  # raised again once all is answered
            uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise StorageError(f"cannot listen at {host}:{port}: {error.strerror}") from error
    # Connections inherit it. An answer's head and body are sent apart, and the body would wait for
    # the head to be acknowledged, which takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _log_to_stderr() -> None:
    """Requests by route, and what went wrong; see `protection`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("asif_lance.service")
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [handler], False
