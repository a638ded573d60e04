"""The provider: answers the engine's requests by the resources' tables and classes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from pulumi.provider.experimental.provider import (
    CheckFailure,
    CheckRequest,
    CheckResponse,
    ConfigureRequest,
    ConfigureResponse,
    CreateRequest,
    CreateResponse,
    DeleteRequest,
    DiffRequest,
    DiffResponse,
    InvokeRequest,
    InvokeResponse,
    PropertyDiff,
    PropertyDiffKind,
    Provider,
    ReadRequest,
    ReadResponse,
    UpdateRequest,
    UpdateResponse,
)

from scripts.toolchain.plugins.errors import InitializationFailed, ProviderError
from scripts.toolchain.plugins.hcloud.api import Api
from scripts.toolchain.plugins.hcloud.check import DEFAULTS, check_inputs
from scripts.toolchain.plugins.hcloud.configuration import check_configuration, load_configuration
from scripts.toolchain.plugins.hcloud.data_sources import DATA_SOURCES
from scripts.toolchain.plugins.hcloud.diff import Change, plan_changes
from scripts.toolchain.plugins.hcloud.resources import RESOURCES
from scripts.toolchain.plugins.hcloud.state import known_after, planned_outputs, refreshed_inputs
from scripts.toolchain.plugins.values import from_properties, has_unknown, to_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi.provider.experimental.property_value import PropertyValue

    from scripts.toolchain.plugins.hcloud.check import Failure
    from scripts.toolchain.plugins.hcloud.resources.base import Made, Resource

_KINDS = {
    ("add", False): PropertyDiffKind.ADD,
    ("add", True): PropertyDiffKind.ADD_REPLACE,
    ("delete", False): PropertyDiffKind.DELETE,
    ("delete", True): PropertyDiffKind.DELETE_REPLACE,
    ("update", False): PropertyDiffKind.UPDATE,
    ("update", True): PropertyDiffKind.UPDATE_REPLACE,
}


class HcloudProvider(Provider):
    """Serves one provider instance of a stack; makes no request before it is asked for an object."""

    def __init__(self) -> None:
        self._api: Api | None = None

    async def check_config(self, request: CheckRequest) -> CheckResponse:
        """Check the configuration without a call; the token comes back as a secret."""
        inputs = {
            name: value.with_secret(is_secret=value.is_secret or name == "token")
            for name, value in request.new_inputs.items()
        }
        return CheckResponse(inputs=inputs, failures=_failures(check_configuration(from_properties(inputs))))

    async def configure(self, request: ConfigureRequest) -> ConfigureResponse:
        """Read the configuration; secrets are the engine's business, which knows which inputs were secret."""
        configuration = load_configuration(from_properties(request.args), os.environ)
        self._api = Api(configuration)
        self._api.warm_up()
        return ConfigureResponse(accept_secrets=False, supports_preview=True)

    async def cancel(self) -> None:
        """Let go of every wait; objects that exist already are still reported."""
        if self._api is not None:
            self._api.cancel()

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Check a resource's inputs against its table."""
        inputs, failures = check_inputs(
            _kind(request.type).schema,
            logical_name=request.name,
            old=from_properties(request.old_inputs),
            new=from_properties(request.new_inputs),
            seed=request.random_seed,
        )
        return CheckResponse(inputs=to_properties(inputs), failures=_failures(failures))

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Compare new inputs with old outputs."""
        changes = plan_changes(
            _kind(request.type).schema,
            outputs=from_properties(request.old_state),
            inputs=from_properties(request.new_inputs),
            ignored=request.ignore_changes,
        )
        return DiffResponse(
            changes=bool(changes),
            replaces=[name for name, change in changes.items() if change.replaces],
            diffs=list(changes),
            detailed_diff={name: _property_diff(change) for name, change in changes.items()},
        )

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Make an object and wait until it is usable."""
        schema = _kind(request.type).schema
        inputs = _inputs(request.properties)
        if request.preview:
            return CreateResponse(properties=to_properties(planned_outputs(schema, inputs)))
        resource = self._resource(request.type)
        made = await resource.create(inputs)
        try:
            async with asyncio.timeout(request.timeout or None):
                outputs = await _complete(resource, made, inputs)
        except (ProviderError, TimeoutError) as error:
            raise await _initialization_failed(resource, made, inputs, error) from error
        return CreateResponse(resource_id=made.object_id, properties=to_properties(outputs))

    async def read(self, request: ReadRequest) -> ReadResponse:
        """Read an object; an empty answer drops it from the state."""
        resource = self._resource(request.type)
        old = from_properties(request.properties)
        object_id = await resource.identify(request.resource_id)
        outputs = await resource.read(object_id, old)
        if outputs is None:
            return ReadResponse()
        inputs = refreshed_inputs(resource.schema, old=from_properties(request.inputs), outputs=outputs)
        return ReadResponse(resource_id=object_id, properties=to_properties(outputs), inputs=to_properties(inputs))

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Change an object in place."""
        schema = _kind(request.type).schema
        old, new = from_properties(request.olds), _inputs(request.news)
        known = known_after(schema, old=old, new=new)
        if request.preview or has_unknown(new):
            return UpdateResponse(properties=to_properties({**old, **known}))
        resource = self._resource(request.type)
        changed = frozenset(plan_changes(schema, outputs=old, inputs=new, ignored=request.ignore_changes))
        async with asyncio.timeout(request.timeout or None):
            await resource.update(request.resource_id, old=old, new=new, changed=changed)
            outputs = await resource.read(request.resource_id, known)
        if outputs is None:
            raise ProviderError(f"{request.name}: it is gone ({request.resource_id}); run `pulumi refresh`")
        return UpdateResponse(properties=to_properties(outputs))

    async def delete(self, request: DeleteRequest) -> None:
        """Delete an object."""
        async with asyncio.timeout(request.timeout or None):
            await self._resource(request.type).delete(request.resource_id, from_properties(request.properties))

    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        """Answer a data source."""
        source = DATA_SOURCES.get(request.tok)
        if source is None:
            raise ProviderError(
                f"{request.tok}: not a function of this provider; see scripts/toolchain/plugins/README.md"
            )
        arguments = from_properties(request.args)
        unknown = [name for name in arguments if name not in source.arguments]
        if unknown:
            failures = [CheckFailure(property=name, reason="Invalid or unknown key") for name in unknown]
            return InvokeResponse(failures=failures)
        return InvokeResponse(return_value=to_properties(await source.read(self._configured(), arguments)))

    def _configured(self) -> Api:
        if self._api is None:
            raise ProviderError("the provider is not configured")
        return self._api

    def _resource(self, token: str) -> Resource:
        return _kind(token)(self._configured())


def _kind(token: str) -> type[Resource]:
    kind = RESOURCES.get(token.rpartition("$")[2])  # a component's child is told with its parents' types in front
    if kind is None:
        raise ProviderError(f"{token}: not a resource of this provider; see scripts/toolchain/plugins/README.md")
    return kind


async def _complete(resource: Resource, made: Made, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    await resource.api.actions.wait(made.actions)
    await resource.finish(made.object_id, inputs)
    outputs = await resource.read(made.object_id, resource.schema.keep(inputs))
    if outputs is None:
        raise ProviderError(f"{made.object_id}: it was gone as soon as it was made")
    return outputs


async def _initialization_failed(
    resource: Resource, made: Made, inputs: Mapping[str, Any], error: Exception
) -> ProviderError:
    """Report an object that must not be lost; one that the API has already removed again is a plain failure."""
    reason = str(error) or "timed out"
    known = {name: value for name, value in resource.schema.keep(inputs).items() if value is not None}
    try:
        outputs = await resource.read(made.object_id, known)
    except ProviderError:
        outputs = known
    if outputs is None:
        return ProviderError(reason)
    return InitializationFailed(reason, object_id=made.object_id, inputs=inputs, outputs=outputs)


def _inputs(properties: Mapping[str, PropertyValue]) -> dict[str, Any]:
    values = from_properties(properties)
    values.pop(DEFAULTS, None)
    return values


def _failures(failures: tuple[Failure, ...]) -> list[CheckFailure]:
    return [CheckFailure(property=failure.path, reason=failure.reason) for failure in failures]


def _property_diff(change: Change) -> PropertyDiff:
    # A digest beside the text that it was made of tells nobody anything: show old input and new input instead.
    return PropertyDiff(kind=_KINDS[change.kind, change.replaces], input_diff=change.hashed)
