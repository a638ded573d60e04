"""The provider: answers the engine's requests by server-side apply."""

from __future__ import annotations

import hashlib
import os
import secrets
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
    PropertyDiff,
    PropertyDiffKind,
    Provider,
    ReadRequest,
    ReadResponse,
    UpdateRequest,
    UpdateResponse,
)

from scripts.toolchain.plugins.errors import InitializationFailed, ProviderError
from scripts.toolchain.plugins.kubernetes import configuration, objects, waiting
from scripts.toolchain.plugins.kubernetes.api import Api
from scripts.toolchain.plugins.kubernetes.errors import ClusterUnreachable, Refused
from scripts.toolchain.plugins.kubernetes.kinds import KINDS
from scripts.toolchain.plugins.values import from_properties, has_unknown, to_properties

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pulumi.provider.experimental.property_value import PropertyValue

    from scripts.toolchain.plugins.kubernetes.kinds import Kind

_KINDS = {
    ("add", False): PropertyDiffKind.ADD,
    ("add", True): PropertyDiffKind.ADD_REPLACE,
    ("delete", False): PropertyDiffKind.DELETE,
    ("delete", True): PropertyDiffKind.DELETE_REPLACE,
    ("update", False): PropertyDiffKind.UPDATE,
    ("update", True): PropertyDiffKind.UPDATE_REPLACE,
}
_PAGE = "see scripts/toolchain/plugins/README.md"


class KubernetesProvider(Provider):
    """Serves one provider instance of a stack: one cluster."""

    def __init__(self, *, warn: Callable[[str, str], Awaitable[None]]) -> None:
        self._warn = warn
        self._api: Api | None = None

    async def check_config(self, request: CheckRequest) -> CheckResponse:
        """Check the configuration without a call; a kubeconfig's content holds credentials and comes back as a secret."""
        plain = from_properties(request.new_inputs)
        inputs = dict(request.new_inputs)
        given = plain.get("kubeconfig")
        if isinstance(given, str) and configuration.is_content(given):
            inputs["kubeconfig"] = inputs["kubeconfig"].with_secret(is_secret=True)
        return CheckResponse(inputs=inputs, failures=_failures(configuration.problems(plain)))

    async def diff_config(self, _request: DiffRequest) -> DiffResponse:
        """Take another configuration in place: objects that another cluster lacks are missing, and are made there."""
        # The engine compares by itself where nothing is said, and the SDK would send a true as "none".
        return DiffResponse(changes=None)

    async def configure(self, request: ConfigureRequest) -> ConfigureResponse:
        """Read the configuration; the engine hands secrets over as such, as the state shall keep them so."""
        self._api = Api(configuration.load(from_properties(request.args), os.environ))
        return ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def cancel(self) -> None:
        """Let go of every wait; objects that were applied are still reported."""
        if self._api is not None:
            self._api.cancel()

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Fill in name and namespace; what is wrong with the rest only the server knows."""
        kind, new = _kind(request.type), from_properties(request.new_inputs)
        namespace = await self._configured().namespace() if kind.namespaced else ""
        inputs = objects.complete(
            kind,
            new,
            old=from_properties(request.old_inputs),
            name=_auto_name(request.name, request.random_seed),
            namespace=namespace,
        )
        secret = _secret_names(kind, request.new_inputs)
        return CheckResponse(
            inputs=to_properties(inputs, secret=secret), failures=_failures(objects.problems(kind, inputs))
        )

    async def diff(self, request: DiffRequest) -> DiffResponse:
        """Let the server tell what an apply would change; inputs that it takes for the same are no difference."""
        kind = _kind(request.type)
        state, new = from_properties(request.old_state), from_properties(request.new_inputs)
        old = state.get("__inputs") or {}
        mutable = self._configured().configuration.may_change_data(kind.name) and not (
            old.get("immutable") or new.get("immutable")
        )
        changed: Mapping[str, str] = objects.changed_paths(old, new)
        replaces = kind.replacing(changed, mutable=mutable)
        if not replaces and not has_unknown(new):
            try:
                changed = await self._server_changes(kind, state, new)
            except ClusterUnreachable as error:
                await self._warn(request.urn, f"{error}; what would change is guessed from the program")
            replaces = kind.replacing(changed, mutable=mutable)
        # The engine names an auto-named object anew for its replacement.
        keeps_its_name = not objects.is_autonamed(new) and objects.reference(old) == objects.reference(new)
        return DiffResponse(
            changes=bool(changed),
            replaces=replaces,
            delete_before_replace=bool(replaces) and keeps_its_name,
            diffs=list(changed),
            detailed_diff={
                path: PropertyDiff(kind=_KINDS[how, path in replaces], input_diff=True) for path, how in changed.items()
            },
        )

    async def create(self, request: CreateRequest) -> CreateResponse:
        """Apply an object that is not there yet, and wait until it is ready."""
        kind, inputs = _kind(request.type), from_properties(request.properties)
        secret = _secret_names(kind, request.properties)
        if request.preview:
            await self._try(request.urn, kind, inputs)
            return CreateResponse(properties=to_properties(objects.planned(kind, inputs), secret=secret))
        api = self._configured()
        namespace, name = objects.reference(inputs)
        if not api.configuration.upsert and await api.find(kind, namespace, name) is not None:
            raise ProviderError(
                f"{kind.name} {name}: there is one already; import it, or set the provider's upsertExistingObjects to adopt it"
            )
        manager = _field_manager(inputs, {})
        live = await self._apply(kind, inputs, manager)
        outputs = await self._ready(kind, live, inputs, manager, secret, custom_s=request.timeout)
        return CreateResponse(resource_id=objects.identity(namespace, name), properties=outputs)

    async def read(self, request: ReadRequest) -> ReadResponse:
        """Read an object; an empty answer drops it from the state, and one that is not ready is told."""
        kind, api = _kind(request.type), self._configured()
        namespace, name = objects.parse_identity(kind, request.resource_id, await api.namespace())
        live = await api.find(kind, namespace, name)
        if live is None:
            return ReadResponse()
        state = from_properties(request.properties)
        inputs = from_properties(request.inputs) or objects.to_inputs(live)
        manager = _field_manager(inputs, state)
        secret = _secret_names(kind, request.inputs)
        outputs = _outputs(kind, live, inputs, manager, secret)
        if not waiting.is_skipped(inputs) and not live["metadata"].get("deletionTimestamp"):
            verdict = await waiting.judge(api, kind, live)
            if not verdict.is_ready:
                reason = await waiting.explain(api, kind, live, verdict)
                raise _half_made(request.resource_id, inputs, outputs, reason, secret)
        return ReadResponse(
            resource_id=request.resource_id, properties=outputs, inputs=to_properties(inputs, secret=secret)
        )

    async def update(self, request: UpdateRequest) -> UpdateResponse:
        """Apply an object that is there, and wait until it is ready again."""
        kind, inputs = _kind(request.type), from_properties(request.news)
        secret = _secret_names(kind, request.news)
        state = from_properties(request.olds)
        if request.preview or has_unknown(inputs):
            known = {key: value for key, value in state.items() if key not in objects.OF_THE_STATE}
            return UpdateResponse(
                properties=to_properties({**known, **objects.planned(kind, inputs, known)}, secret=secret)
            )
        manager = _field_manager(inputs, state)
        live = await self._apply(kind, inputs, manager)
        return UpdateResponse(
            properties=await self._ready(kind, live, inputs, manager, secret, custom_s=request.timeout)
        )

    async def delete(self, request: DeleteRequest) -> None:
        """Delete an object and all that hangs on it, and wait until it is gone; one that is missing is deleted."""
        kind, api = _kind(request.type), self._configured()
        state = from_properties(request.properties)
        inputs = state.get("__inputs") or state
        namespace, name = objects.parse_identity(kind, request.resource_id, await api.namespace())
        propagation = (objects.annotation(inputs, objects.PROPAGATION) or "foreground").capitalize()
        try:
            if await api.delete(kind, namespace, name, propagation=propagation) and not waiting.is_skipped(inputs):
                uid = (state.get("metadata") or {}).get("uid") or ""
                within_s = waiting.timeout_s(inputs, request.timeout)
                await waiting.until_gone(api, kind, namespace, name, uid=uid, within_s=within_s)
        except ClusterUnreachable as error:
            if not api.configuration.delete_unreachable:
                raise ClusterUnreachable(
                    f"{error}; if the cluster is gone for ever: PULUMI_K8S_DELETE_UNREACHABLE=true"
                ) from error

    async def _apply(
        self, kind: Kind, inputs: Mapping[str, Any], manager: str, *, dry_run: bool = False
    ) -> dict[str, Any]:
        force = objects.annotation(inputs, objects.PATCH_FORCE) == "true"
        body = objects.to_apply(kind, inputs)
        return await self._configured().apply(kind, body, manager=manager, force=force, dry_run=dry_run)

    async def _ready(
        self,
        kind: Kind,
        live: dict[str, Any],
        inputs: Mapping[str, Any],
        manager: str,
        secret: frozenset[str],
        *,
        custom_s: float,
    ) -> dict[str, PropertyValue]:
        """Wait for an applied object; if that fails it is in the state all the same, and the next update tries again."""
        try:
            if not waiting.is_skipped(inputs):
                within_s = waiting.timeout_s(inputs, custom_s)
                live = await waiting.until_ready(self._configured(), kind, live, within_s=within_s)
        except ProviderError as error:
            outputs = _outputs(kind, live, inputs, manager, secret)
            identity = objects.identity(*objects.reference(inputs))
            raise _half_made(identity, inputs, outputs, str(error), secret) from error
        return _outputs(kind, live, inputs, manager, secret)

    async def _server_changes(self, kind: Kind, state: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, str]:
        namespace, name = objects.reference(new)
        live = await self._configured().find(kind, namespace, name)
        if live is None:
            return {"metadata": "add"}
        then = await self._apply(kind, new, _field_manager(new, state), dry_run=True)
        return objects.changed_paths(objects.to_inputs(live), objects.to_inputs(then))

    async def _try(self, urn: str, kind: Kind, inputs: Mapping[str, Any]) -> None:
        """Let the server look at an object in a preview, as far as it can know what comes before it."""
        if has_unknown(inputs):
            return
        namespace, name = objects.reference(inputs)
        try:
            # What is there may be about to be replaced.
            if await self._configured().find(kind, namespace, name) is None:
                await self._apply(kind, inputs, _field_manager(inputs, {}), dry_run=True)
        except ClusterUnreachable as error:
            await self._warn(urn, f"{error}; previewed without it")
        except Refused as error:
            if error.reason != "NotFound" or error.code != 404 or not namespace:
                raise
            if await self._is_there_a_namespace(namespace):
                raise

    async def _is_there_a_namespace(self, name: str) -> bool:
        return await self._configured().find(KINDS["kubernetes:core/v1:Namespace"], None, name) is not None

    def _configured(self) -> Api:
        if self._api is None:
            raise ProviderError("the provider is not configured")
        return self._api


def _kind(token: str) -> Kind:
    kind = KINDS.get(token.rpartition("$")[2])  # a component's child is told with its parents' types in front
    if kind is None:
        raise ProviderError(f"{token}: not a resource of this provider; {_PAGE}")
    return kind


def _auto_name(logical_name: str, seed: bytes) -> str:
    """Make a name that no earlier object has; the same seed gives the same name, so that up keeps what preview showed."""
    digits = hashlib.sha256(seed).hexdigest() if seed else secrets.token_hex(4)
    return f"{logical_name}-{digits[:8]}"


def _field_manager(inputs: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    known = objects.annotation(inputs, objects.FIELD_MANAGER) or state.get("__fieldManager")
    return str(known or f"pulumi-kubernetes-{secrets.token_hex(4)}")


def _secret_names(kind: Kind, *given: Mapping[str, PropertyValue]) -> frozenset[str]:
    """Return which top-level properties are secret: those of the kind, and those that hold a secret of the program."""
    held = {name for each in given for name, value in each.items() if value.contains_secret()}
    return frozenset({*kind.secret, *held})


def _outputs(
    kind: Kind, live: Mapping[str, Any], inputs: Mapping[str, Any], manager: str, secret: frozenset[str]
) -> dict[str, PropertyValue]:
    outputs = objects.to_outputs(kind, live, field_manager=manager)
    return to_properties({**outputs, "__inputs": to_properties(inputs, secret=secret)}, secret=secret)


def _half_made(
    identity: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], reason: str, secret: frozenset[str]
) -> InitializationFailed:
    return InitializationFailed(
        reason, object_id=identity, inputs=to_properties(inputs, secret=secret), outputs=outputs
    )


def _failures(found: Mapping[str, str]) -> list[CheckFailure]:
    return [CheckFailure(property=path, reason=reason) for path, reason in found.items()]
