"""The gRPC side: the SDK's servicer, with errors as the engine wants them.

`pulumi.provider.experimental.server.main` turns every exception into "Unexpected <class>" and cannot tell the engine that
an object exists though its creation failed. Hence the SDK's servicer behind an interceptor, and the few lines that serve it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime import proto
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2_grpc, status_pb2

from scripts.toolchain.plugins.errors import InitializationFailed, ProviderError
from scripts.toolchain.plugins.values import to_properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi.provider.experimental.provider import Provider

_CODE = grpc.StatusCode.FAILED_PRECONDITION
"""Any code but unknown, internal and data loss, after which the engine would not know what state the object is in."""


class Reporter(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends a call that failed foreseeably with one line for the user, and with the object if there is one."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def reporting(request: Any, context: Any) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except InitializationFailed as error:
                await context.abort(_CODE, str(error), (("grpc-status-details-bin", _details(error)),))
            except TimeoutError:
                await context.abort(_CODE, "timed out; raise customTimeouts, or look at the object itself")
            except ProviderError as error:
                await context.abort(_CODE, str(error))

        return grpc.unary_unary_rpc_method_handler(
            reporting,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def serve(arguments: Sequence[str], *, version: str, provider: Provider) -> None:
    """Serve a provider until the engine ends it; the port goes to stdout, as the engine expects."""
    engine = engine_address(arguments)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(ProviderServicer(list(arguments), version, provider, engine_address=engine)))
    # A request that still hangs on a thread must not keep the process: nobody is left to hear its answer.
    os._exit(0)


def engine_address(arguments: Sequence[str]) -> str:
    """Return where the engine listens, which it tells as the first argument."""
    return next((argument for argument in arguments if not argument.startswith("-")), "")


class Engine:
    """The engine's own ear: for what a user should see though nothing failed."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def warn(self, urn: str, message: str) -> None:
        """Show a warning beside a resource."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            request = proto.LogRequest(severity=proto.LogSeverity.WARNING, message=message, urn=urn)
            await engine_pb2_grpc.EngineStub(channel).Log(request)


async def _serve(servicer: ProviderServicer) -> None:
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS, interceptors=(Reporter(),))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await _engine_is_gone()


async def _engine_is_gone() -> None:
    """Wait until the engine has died without ending us: it starts plugins in process groups of their own."""
    engine = os.getppid()
    while os.getppid() == engine:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(1)


def _details(error: InitializationFailed) -> bytes:
    """Return the status that makes the engine keep a half-made object in the state."""
    failed = proto.ErrorResourceInitFailed(
        id=error.object_id,
        properties=PropertyValue.marshal_map(to_properties(error.outputs)),
        inputs=PropertyValue.marshal_map(to_properties(error.inputs)),
        reasons=[str(error)],
    )
    detail = any_pb2.Any()
    detail.Pack(failed)
    status: bytes = status_pb2.Status(code=_CODE.value[0], message=str(error), details=[detail]).SerializeToString()
    return status
