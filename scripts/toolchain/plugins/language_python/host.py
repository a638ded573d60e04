"""Answers the engine's calls to a language host over gRPC.

Runs programs and says which packages they use. Leaves installing (scripts/setup) and code generation out: the engine
gets UNIMPLEMENTED for those.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from scripts.toolchain.plugins.language_python.program import (
    Program,
    UnusableRuntime,
    build_command,
    build_environment,
    explain_exit,
    find_interpreter,
    find_virtualenv,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

EXECUTOR = "pulumi-language-python-exec"
STOP_GRACE_S = 5.0
MAX_MESSAGE_BYTES = 400 * 1024 * 1024
"""The engine's own limit."""

LIST_PACKAGES = """
import importlib.metadata, json
print(json.dumps(sorted((d.metadata["Name"], d.version) for d in importlib.metadata.distributions())))
"""


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """One language host, serving one engine."""

    def __init__(self, engine: str, version: str) -> None:
        self._engine = engine
        self._version = version
        self._running: set[asyncio.subprocess.Process] = set()

    async def Handshake(self, request: Message, context: object) -> Message:  # noqa: N802, ARG002
        """Remember where the engine listens."""
        self._engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    async def GetPluginInfo(self, request: Message, context: object) -> Message:  # noqa: N802, ARG002
        """Say which version this is: that of the SDK it drives."""
        return plugin_pb2.PluginInfo(version=self._version)

    async def GetRequiredPackages(self, request: Message, context: object) -> Message:  # noqa: N802, ARG002
        """Ask for nothing ahead of time: the engine looks for a plugin when the first resource needs it."""
        return language_pb2.GetRequiredPackagesResponse()

    async def GetRequiredPlugins(self, request: Message, context: object) -> Message:  # noqa: N802, ARG002
        """Answer as GetRequiredPackages does."""
        return language_pb2.GetRequiredPluginsResponse()

    async def About(self, request: Message, context: object) -> Message:  # noqa: N802
        """Tell which interpreter would run the program."""
        options = json_format.MessageToDict(request.info.options)
        interpreter = await self._interpreter(request.info.root_directory, options, context)
        version = await self._output(interpreter, "import platform; print(platform.python_version())")
        return language_pb2.AboutResponse(executable=str(interpreter), version=version.strip())

    async def GetProgramDependencies(self, request: Message, context: object) -> Message:  # noqa: N802
        """List the packages that the program's interpreter can import."""
        options = json_format.MessageToDict(request.info.options)
        interpreter = await self._interpreter(request.info.root_directory, options, context)
        packages = json.loads(await self._output(interpreter, LIST_PACKAGES))
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=name, version=version) for name, version in packages]
        )

    async def Run(self, request: Message, context: object) -> Message:  # noqa: N802
        """Run the program to its end; its output goes straight to the engine, which shows it."""
        info = request.info
        options = json_format.MessageToDict(info.options)
        root = Path(info.root_directory)
        interpreter = await self._interpreter(info.root_directory, options, context)
        try:
            program = _read_program(request, engine=self._engine)
        except UnusableRuntime as missing:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(missing))  # type: ignore[attr-defined]
            raise
        process = await asyncio.create_subprocess_exec(
            *_ending_with_parent(),
            *build_command(interpreter, program),
            env=build_environment(os.environ, program, find_virtualenv(root, options), options),
            cwd=program.directory,
            stdin=asyncio.subprocess.DEVNULL,
        )
        self._running.add(process)
        try:
            error, bail = explain_exit(await process.wait())
        finally:
            self._running.discard(process)
        return language_pb2.RunResponse(error=error, bail=bail)

    async def Cancel(self, request: Message, context: object) -> Message:  # noqa: N802, ARG002
        """End the programs that run."""
        await self.stop_programs()
        return Empty()

    async def stop_programs(self) -> None:
        """End the programs that run, the stubborn ones by force."""
        running = tuple(self._running)
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                await asyncio.wait_for(process.wait(), STOP_GRACE_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()

    async def _interpreter(self, root: str, options: Mapping[str, object], context: object) -> Path:
        try:
            return find_interpreter(Path(root), options, fallback=Path(sys.executable))
        except UnusableRuntime as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))  # type: ignore[attr-defined]
            raise

    async def _output(self, interpreter: Path, code: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(interpreter), "-c", code, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode()


def _read_program(request: Message, *, engine: str) -> Program:
    info = request.info
    return Program(
        executor=find_executor(),
        monitor=request.monitor_address,
        engine=engine,
        project=request.project,
        stack=request.stack,
        organization=request.organization,
        root=Path(info.root_directory),
        directory=info.program_directory or request.pwd,
        entry_point=info.entry_point,
        dry_run=request.dryRun,
        parallel=request.parallel,
        arguments=tuple(request.args),
        config=dict(request.config),
        secret_keys=tuple(request.configSecretKeys),
    )


def _ending_with_parent() -> list[str]:
    # A host that was killed cannot stop its program any more; the kernel does it then. A wrapper, because code between
    # fork and exec is not safe in a process with gRPC's threads.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def find_executor() -> Path:
    """Return the script of the SDK that runs a program, which scripts/setup puts beside the plugins."""
    found = shutil.which(EXECUTOR)
    if found is None:
        raise UnusableRuntime(f"{EXECUTOR}: not on PATH; run scripts/setup tools")
    return Path(found)


async def serve(engine: str, version: str, stop: asyncio.Event) -> None:
    """Serve the engine until `stop`; the port is the first line on stdout, as the engine expects."""
    limits = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=limits)
    host = LanguageHost(engine, version)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await stop.wait()
    await host.stop_programs()
    await server.stop(grace=None)
