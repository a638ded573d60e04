"""The Pulumi program: settings, plan, components, outputs."""

import os
from datetime import UTC, datetime

import pulumi

from builders import buildkit, buildx, refusals, registry_program
from builders.errors import BuilderError
from builders.hetzner import Hetzner
from infra import plan, settings
from infra.components.fleet import Fleet

try:
    wanted = settings.parse(pulumi.runtime.config.get_config_env())
    provider = pulumi.Config("hcloud")
    cloud = Hetzner(
        token=provider.get("token") or os.environ.get("HCLOUD_TOKEN", ""),
        endpoint=provider.get("endpoint") or os.environ.get("HCLOUD_ENDPOINT"),
    )
    now = datetime.now(UTC)
    project, stack = pulumi.get_project(), pulumi.get_stack()
    planned = plan.make(
        wanted, project=project, stack=stack, cloud=cloud.load(plan.labels(project, stack)),
        refusals=refusals.load(now), now=now,
    )  # fmt: skip
    tarballs = {
        platform: buildkit.resolve(tarball.source, tarball.sha256) for platform, tarball in wanted.tarballs.items()
    }
    program = registry_program.pack() if wanted.registry else b""
    if not pulumi.runtime.is_dry_run() and not all(node.exists for node in planned.nodes):
        for builder in planned.registrations:
            buildx.check_free(builder)  # the registration comes last, when all is rented
except BuilderError as error:
    raise pulumi.RunError(f"{error}\n  {error.hint}" if error.hint else str(error)) from None

for spare in plan.spare_addresses(planned):
    pulumi.log.info(f"{spare} is kept, though no builder has it any more; docs/operate.md tells how to give it up")

fleet = Fleet(planned, wanted, tarballs)

pulumi.export("id", fleet.authority.identity)
pulumi.export("nodes", fleet.nodes)
pulumi.export("builders", fleet.builders)
pulumi.export("authority", fleet.authority.certificate)
pulumi.export("authorityKey", pulumi.Output.secret(fleet.authority.key))
pulumi.export("sshKey", pulumi.Output.secret(fleet.ssh_key.private_key))
pulumi.export("commands", plan.commands(planned))

if wanted.registry:
    from infra.components.registry import Registry  # the whole of Kubernetes, a second or two

    registry = Registry(
        wanted.registry, stack=planned.name, authority=fleet.authority, program=program, protect=wanted.protect
    )
    pulumi.export("registry", wanted.registry.host)
    pulumi.export("registryCollection", registry.collection)
    pulumi.export("registryTrust", registry.trust)
    pulumi.export("registryUsers", pulumi.Output.secret(registry.users))
