"""Read what is to be merged: flatten it into platforms, and make sure that every part is what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scripts.registry import exchange, manifests, platforms, untag
from scripts.registry.errors import InvalidManifest, NotFound, RegistryFailed, SourceRefused
from scripts.registry.manifests import Contribution, Descriptor, Image, Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scripts.registry.exchange import Protocol, Request, Response
    from scripts.registry.platforms import Platform
    from scripts.registry.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source as it was read; `digest` is what its tag named then. `parts` are its manifests, once they were read."""

    reference: Reference
    digest: str
    contributions: tuple[Contribution, ...]
    parts: tuple[Image, ...] = ()
    checked: bool = False


def load(reference: Reference, wanted: Sequence[Platform]) -> Protocol[Source | None]:
    """Read a source, or those of its platforms that are `wanted`; None: there is none of this name.

    An index takes one round, and its parts are left to be looked at beside other things (`part_requests`, then
    `config_requests`); of a plain image the configuration is read here, for it names the platform.
    """
    found = yield from untag.read(reference)
    if found is None:
        return None
    digest = found.digest
    if was := untag.buried(found):  # a merge was killed while it removed this tag
        reference_then = reference.at(was)
        found = exchange.require(reference_then, (yield from untag.read(reference_then)))
    if isinstance(found, Image):
        return (yield from from_image(reference, found, wanted, digest=digest))
    contributions = tuple(_contributions(reference, found, wanted))
    return Source(reference=reference, digest=digest, contributions=contributions)


def part_requests(source: Source) -> list[Request]:
    """Ask for the manifests that have not been looked at."""
    return (
        [] if source.checked else [exchange.get_manifest(source.reference.at(each.digest)) for each in _parts(source)]
    )


def check_parts(source: Source, responses: Iterable[Response]) -> Source:
    """Make sure that each part is what the index says; the source with its parts."""
    if source.checked:
        return source
    parts = [_part(source.reference, *pair) for pair in zip(_parts(source), responses, strict=True)]
    return replace(source, parts=tuple(parts))


def config_requests(source: Source) -> list[Request]:
    """Ask for the configurations that have not been looked at."""
    return [exchange.get_blob(source.reference, config.digest) for config, _ in _configs(source)]


def check_configs(source: Source, responses: Iterable[Response]) -> None:
    """Make sure that each image was built for the platform that its index says."""
    for (config, platform), response in zip(_configs(source), responses, strict=True):
        built_for = platforms.from_json(_config(source.reference, config, response))
        if built_for and (built_for.os, built_for.architecture) != (platform.os, platform.architecture):
            raise SourceRefused(f"{source.reference}: its index says {platform}, its configuration says {built_for}")


def _parts(source: Source) -> list[Descriptor]:
    return [each for part in source.contributions for each in (part.image, *part.attestations)]


def _configs(source: Source) -> list[tuple[Descriptor, Platform]]:
    configs = {part.digest: part.config for part in source.parts}
    return [] if source.checked else [(configs[each.image.digest], each.platform) for each in source.contributions]


def bring(target: Reference, source: Source) -> Protocol[None]:
    """Have the target's repository link what another repository of the registry holds; no blob travels."""
    digests = {each.digest: None for part in source.parts for each in (part.config, *part.layers) if not foreign(each)}
    responses = yield [exchange.mount_blob(target, digest, source.reference.repository) for digest in digests]
    sessions = [response.headers.get("location", "") for response in responses if response.status == 202]
    if any(sessions):  # a refused mount has begun an upload that nobody will finish
        yield [exchange.cancel_upload(target, each) for each in sessions if each]
    for digest, response in zip(digests, responses, strict=True):
        if response.status == 202:
            raise RegistryFailed(
                f"{source.reference}: the registry does not mount its blob {digest[:19]}… into {target.name}", status=202,
                hint="see that these credentials may read both; or push to the target's own repository",
            )  # fmt: skip
        if response.status != 201:
            raise exchange.refusal(f"{target.name}", response)
    responses = yield [exchange.put_manifest(target.at(part.digest), part) for part in source.parts]
    for part, response in zip(source.parts, responses, strict=True):
        exchange.check_stored(target.at(part.digest), part.digest, response)


def load_config(reference: Reference, image: Image) -> Protocol[dict[str, Any]]:
    """Read an image's configuration."""
    (response,) = yield [exchange.get_blob(reference, image.config.digest)]
    return _config(reference, image.config, response)


def from_image(reference: Reference, image: Image, wanted: Sequence[Platform], *, digest: str = "") -> Protocol[Source]:
    """Read the platform of a plain image; `digest` is what the tag named, where that is something else."""
    digest = digest or image.digest
    requests = [exchange.get_blob(reference, image.config.digest)]
    if reference.tag and not reference.digest and image.media_type == manifests.DOCKER_MANIFEST:
        requests.append(exchange.head_manifest(reference, unless=digest))
    config, *same = yield requests
    for each in same:
        yield from exchange.check_accepted(reference, each, digest)
    known = _config(reference, image.config, config)
    platform = platforms.from_json(known)
    if not platform:
        if len(wanted) != 1:
            raise SourceRefused(
                f"{reference}: its configuration names no platform", hint="say which it is: --platform linux/arm64"
            )
        platform = wanted[0]
        known = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    if wanted and platform not in wanted:
        raise SourceRefused(f"{reference}: it is for {platform}, not for {_names(wanted)}")
    contribution = Contribution(platform=platform, image=manifests.describe(image, known))
    return Source(reference=reference, digest=digest, contributions=(contribution,), parts=(image,), checked=True)


def _contributions(reference: Reference, index: Index, wanted: Sequence[Platform]) -> Iterable[Contribution]:
    images = index.images()
    missing = [each for each in wanted if each not in images]
    for each in index.descriptors if missing or not wanted else ():  # beside what is wanted anything may be
        if each.media_type in manifests.INDEXES:
            raise SourceRefused(
                f"{reference}: it holds another index ({each.digest[:19]}…), and clients would not look into it",
                hint="merge that one: --from REPOSITORY@DIGEST",
            )
        if not each.runnable and not each.subject:
            raise SourceRefused(f"{reference}: its manifest {each.digest[:19]}… names no platform")
    if not images:
        raise SourceRefused(f"{reference}: it has no platform")
    chosen = [each for each in index.descriptors if each.runnable and (not wanted or each.platform in wanted)]
    if len({each.platform for each in chosen}) < len(chosen):
        raise SourceRefused(f"{reference}: it has two images for one platform", hint="name one by its digest")
    if missing:
        raise SourceRefused(f"{reference}: it has no {_names(missing)}, only {_names(images)}")
    for platform, image in images.items():
        if not wanted or platform in wanted:
            yield Contribution(platform=platform, image=image, attestations=index.attestations(image.digest))


def _part(reference: Reference, descriptor: Descriptor, response: Response) -> Image:
    here = reference.at(descriptor.digest)
    found = exchange.read_manifest(here, response)
    if found is None:
        raise NotFound(
            f"{reference}: its part {descriptor.digest} is not in the registry", hint="build and push it again"
        )
    if not isinstance(found, Image) or found.media_type != descriptor.media_type or len(found.body) != descriptor.size:
        raise InvalidManifest(
            f"{here}: its index says {descriptor.media_type} of {descriptor.size} bytes, "
            f"it is {found.media_type} of {len(found.body)}"
        )
    return found


def _config(reference: Reference, config: Descriptor, response: Response) -> dict[str, Any]:
    if response.status != 200:
        refused = exchange.refusal(f"{reference}: its configuration {config.digest[:19]}…", response)
        refused.hint = refused.hint or "build and push it again"
        raise refused
    if manifests.digest_of(response.body) != config.digest:
        raise InvalidManifest(f"{reference}: its configuration has not the digest {config.digest}")
    found = exchange.parse_json(response.body)
    return found if isinstance(found, dict) else {}


def foreign(descriptor: Descriptor) -> bool:
    """Tell whether a layer lies elsewhere by its own word."""
    return "foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type


def _names(wanted: Iterable[Platform]) -> str:
    return ", ".join(map(str, wanted))
