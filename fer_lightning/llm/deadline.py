"""Network streams that end at a deadline, however slowly and for however long a server sends."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

_SLICE = 0.5  # seconds; how soon a wait notices that the deadline was moved


class _BoundedStream(httpcore.NetworkStream):
    """A network stream whose waits end at a deadline.

    Args:
        stream: The stream.
        remaining: Returns the seconds until the deadline of the calling thread.
    """

    def __init__(self, stream: httpcore.NetworkStream, remaining: Callable[[], float]) -> None:
        self._stream = stream
        self._remaining = remaining

    def _left(self, timeout: float | None) -> float:
        return self._remaining() if timeout is None else min(timeout, self._remaining())

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived, at most ``max_bytes``."""
        started = time.monotonic()
        while (left := self._left(timeout if timeout is None else timeout + started - time.monotonic())) > 0:
            try:
                return self._stream.read(max_bytes, min(left, _SLICE))
            except httpcore.ReadTimeout:
                continue
        raise httpcore.ReadTimeout("the whole reply took too long")

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes."""
        if (left := self._left(timeout)) <= 0:
            raise httpcore.WriteTimeout("the whole request took too long")
        self._stream.write(buffer, left)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Encrypt the stream."""
        left = max(self._left(timeout), 0.001)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._remaining)

    def get_extra_info(self, info: str) -> Any:
        """Return what the stream says of itself."""
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore.NetworkBackend):
    """Opens such streams."""

    def __init__(self, remaining: Callable[[], float]) -> None:
        self._remaining = remaining
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a server."""
        left = max(min(self._remaining(), timeout or self._remaining()), 0.001)
        stream = self._backend.connect_tcp(host, port, left, local_address, socket_options)
        return _BoundedStream(stream, self._remaining)


def bound_waits(client: httpx.Client, remaining: Callable[[], float]) -> None:
    """Make every wait of a client end at a deadline.

    httpx limits each wait by itself: a server that sends one byte of a header per second, or one interim
    response after the other, is waited for without end. Its transports take no network backend, so that of
    their pools is replaced; pyproject.toml pins the minor version of httpx.

    Args:
        client: Before its first request.
        remaining: Returns the seconds until the deadline of the calling thread.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = _BoundedBackend(remaining)
