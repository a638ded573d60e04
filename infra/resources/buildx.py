"""The registration of a buildx builder on the machine that runs Pulumi.

State holds names and endpoints and no path, and `diff` looks at this machine: where a second operator or a CI job
runs `up`, the builder is registered there and nothing else changes.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pulumi import ResourceOptions
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from builders import registration
from builders.certificates import Authority
from builders.inventory import Endpoint
from infra.resources.shell import Shell, changed, plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi import Input

SECRETS = ["authority_key"]


def _register(props: dict[str, Any]) -> None:
    registration.register_operator(
        props["builder"],
        _nodes(props),
        Authority(certificate=props["authority"], key=props["authority_key"]),
        now=datetime.now(UTC),
    )


def _nodes(props: dict[str, Any]) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(**{key: node[key] for key in ("name", "endpoint", "platform")}) for node in props["nodes"])


class _BuildxBuilderProvider(Shell):
    @plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        _register(props)
        return CreateResult(id_=props["builder"], outs=props)

    @plainly
    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        replaces = changed(olds, news, "builder")
        differs = changed(olds, news, "nodes", "authority")
        here = bool(replaces or differs) or registration.is_current(
            news["builder"], _nodes(news), news["authority"], now=datetime.now(UTC)
        )
        return DiffResult(changes=bool(replaces or differs) or not here, replaces=replaces, delete_before_replace=True)

    @plainly
    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        _register(news)
        return UpdateResult(outs=news)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        if left := registration.leave(props["builder"], props["authority"]):
            sys.stderr.write(f"{left}\n")


class BuildxBuilder(Resource, module="slipway", name="BuildxBuilder"):
    """A builder in this machine's buildx configuration, one node per platform."""

    def __init__(
        self,
        name: str,
        *,
        builder: str,
        nodes: Sequence[Input[Any]],
        authority: Input[str],
        authority_key: Input[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            _BuildxBuilderProvider(),
            name,
            {"builder": builder, "nodes": nodes, "authority": authority, "authority_key": authority_key},
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=SECRETS)),
        )
