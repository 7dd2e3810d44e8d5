"""The way a request takes: no redirect, no proxy, no cookie, and for credentialed text only addresses that are private.

A host is checked before the job starts (`check_policy`), and its addresses again at every connection: what a name
resolves to may change in the middle of a run, by mistake or on purpose.
"""

import socket

import aiohttp
import httpx2
import openai
from aiohttp.abc import ResolveResult
from httpx_aiohttp.httpx2 import AiohttpTransport

from unix.data.cleaning.endpoint import Endpoint, is_private_address
from unix.errors import PolicyError

_SECONDS_TO_CONNECT = 30.0


class PrivateResolver(aiohttp.ThreadedResolver):
    """Resolves names, and refuses those with an address that is neither loopback nor private."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The host's addresses.

        Raises:
            PolicyError: one of them is public.
        """
        found = await super().resolve(host, port, family)
        if not all(is_private_address(result["host"]) for result in found):
            raise PolicyError(
                f"{host} now resolves to a public address, where credentialed reports must not go (PhysioNet's data "
                "use agreement); nothing more was sent. Look at the name service or the VPN, then run again"
            )
        return found


def http_client(endpoint: Endpoint, concurrency: int, private_only: bool) -> httpx2.AsyncClient:
    """A client for one endpoint, with as many connections as requests in flight.

    The aiohttp transport on a session of our own: the one that it makes sets neither resolver nor jar.
    """
    if endpoint.embedded:
        from unix.data.cleaning.server import app

        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), follow_redirects=False)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=concurrency, resolver=PrivateResolver() if private_only else None, ssl=transport.ssl_context
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    transport = AiohttpTransport(trust_env=False, client=session)
    return openai.DefaultAioHttpClient(
        transport=transport,
        follow_redirects=False,
        trust_env=False,
        timeout=httpx2.Timeout(endpoint.limits.timeout_seconds, connect=_SECONDS_TO_CONNECT),
    )
