"""Look at a tag: what it has for each platform, and what of it cannot be read or is not as it should be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scripts.registry import exchange, manifests, merge, platforms, records, sources, untag
from scripts.registry.errors import InvalidManifest, RegistryError
from scripts.registry.manifests import Image, Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripts.registry.exchange import Protocol, Response
    from scripts.registry.manifests import Descriptor
    from scripts.registry.platforms import Platform
    from scripts.registry.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a client gets for a platform; `size` is in bytes, manifest, configuration and layers together."""

    platform: str
    digest: str
    size: int
    created: str
    attestations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong. `breaks` tells whether somebody's pull fails; `cure` is a command, where there is one."""

    what: str
    breaks: bool = True
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found of a reference."""

    reference: Reference
    digest: str
    media_type: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    manifests_read: int
    blobs_read: int

    @property
    def broken(self) -> bool:
        """Tell whether something of it cannot be pulled."""
        return any(each.breaks for each in self.findings)


def inspect(reference: Reference, *, deep: bool = False) -> Protocol[Inspection]:
    """Read every manifest and every configuration; `deep`: also the first byte of every layer, as only a blob that is there gives it."""
    found = exchange.require(reference, (yield from untag.read(reference)))
    findings: list[Finding] = []
    parts: dict[str, Image] = {}
    yield from _read_parts(reference, found, parts, findings, depth=0)
    configs = yield from _read_configs(reference, list(parts.values()), findings)
    layers: list[str] = []
    if deep:
        layers = yield from _read_layers(reference, list(parts.values()), findings)
    if isinstance(found, Index):
        findings += _oddities(reference, found)
        if reference.tag and not reference.digest and not reference.tag.startswith(records.PREFIX):
            known = yield from merge.read_records(reference, dict.fromkeys([*found.images(), *records.USUAL]))
            findings += _lost(reference, found, known)
        attested = _attestations(found)
        rows = tuple(
            _row(str(platform), image.digest, parts, configs, attestations=attested[image.digest])
            for platform, image in found.images().items()
        )
    else:
        platform = str(platforms.from_json(configs.get(found.digest, {}))) or "unknown"
        rows = (_row(platform, found.digest, parts, configs),)
    return Inspection(
        reference=reference,
        digest=found.digest,
        media_type=found.media_type,
        rows=rows,
        findings=tuple(dict.fromkeys(findings)),
        manifests_read=1 + len(parts) - isinstance(found, Image),
        blobs_read=len(configs) + len(layers),
    )


def present(reference: Reference) -> Protocol[set[Platform]]:
    """Return the platforms that a tag has; none where there is no such tag."""
    found = yield from untag.read(reference)
    return set((yield from merge.as_index(reference, found)).images())


def _read_parts(
    reference: Reference, found: Index | Image, parts: dict[str, Image], findings: list[Finding], *, depth: int
) -> Protocol[None]:
    if isinstance(found, Image):
        parts[found.digest] = found
        return
    wanted = {each.digest: each for each in found.descriptors if each.digest not in parts}
    responses = yield [exchange.get_manifest(reference.at(digest)) for digest in wanted]
    nested = []
    for (digest, descriptor), response in zip(wanted.items(), responses, strict=True):
        try:
            part = exchange.read_manifest(reference.at(digest), response)
            if part is None:
                findings.append(Finding(what=f"{_called(descriptor)} is not in the registry", cure=_cure(reference)))
            elif part.media_type != descriptor.media_type or len(part.body) != descriptor.size:
                raise InvalidManifest(f"{len(part.body)} bytes of {part.media_type}, and the index says otherwise")
            elif isinstance(part, Index):
                nested.append(part)
                findings.append(Finding(what=f"{_called(descriptor)} is an index within the index", breaks=False))
            else:
                parts[digest] = part
        except RegistryError as error:
            findings.append(Finding(what=f"{_called(descriptor)} cannot be read: {error}", cure=_cure(reference)))
    for each in nested if depth < 3 else ():
        yield from _read_parts(reference, each, parts, findings, depth=depth + 1)


def _read_configs(
    reference: Reference, images: Sequence[Image], findings: list[Finding]
) -> Protocol[dict[str, dict[str, Any]]]:
    """Read the configurations: what was built, when, by the image's digest."""
    responses = yield [exchange.get_blob(reference, image.config.digest) for image in images]
    known = {}
    for image, response in zip(images, responses, strict=True):
        if response.status != 200 or manifests.digest_of(response.body) != image.config.digest:
            findings.append(_unreadable(reference, "configuration", image, image.config.digest, response))
            continue
        value = exchange.parse_json(response.body)
        known[image.digest] = value if isinstance(value, dict) else {}
    return known


def _read_layers(reference: Reference, images: Sequence[Image], findings: list[Finding]) -> Protocol[list[str]]:
    owners = {layer.digest: image for image in images for layer in image.layers if not sources.foreign(layer)}
    responses = yield [exchange.get_blob(reference, digest, first_byte=True) for digest in owners]
    for (digest, image), response in zip(owners.items(), responses, strict=True):
        # An empty layer has no first byte: 416.
        if response.status not in {200, 206, 416} or (response.status != 416 and not response.body):
            findings.append(_unreadable(reference, "layer", image, digest, response))
    return list(owners)


def _unreadable(reference: Reference, kind: str, image: Image, digest: str, response: Response) -> Finding:
    return Finding(
        what=f"the {kind} {digest[:19]}… of {image.digest[:19]}… cannot be read ({response.status or 'cut off'})",
        cure=_cure(reference),
    )


def _oddities(reference: Reference, index: Index) -> Iterator[Finding]:
    if untag.buried(index):
        yield Finding(what="the removal of this tag was cut off", cure=f"slipway untag {reference}")
    images: dict[Platform | None, list[Descriptor]] = {}
    for each in index.descriptors:
        if each.runnable:
            images.setdefault(each.platform, []).append(each)
    for platform, several in images.items():
        if len(several) > 1:
            others = ", ".join(f"{each.digest[:19]}…" for each in several[1:])
            yield Finding(
                what=f"{platform} is there {len(several)} times; clients take the first, not {others}", breaks=False
            )
    for each in index.orphans():
        yield Finding(what=f"{_called(each)} is of an image that is not in the index", breaks=False)
    for each in index.descriptors:
        if not each.runnable and not each.subject and each.media_type not in manifests.INDEXES:
            yield Finding(what=f"{_called(each)} names no platform", breaks=False)


def _lost(reference: Reference, index: Index, known: dict[Any, records.Record]) -> Iterator[Finding]:
    for record in records.lost(index, index.digest, known):
        place = records.record_tag(reference, record.platform)
        yield Finding(
            what=f"{record.platform} was merged as {record.image[:19]}… and is not in the tag any more",
            breaks=False,
            cure=f"slipway merge {reference} --from {place.name}@{record.to_index().digest}",
        )


def _attestations(index: Index) -> Counter[str]:
    """Count the attestations of each image, and theirs."""
    subjects = {each.digest: each.subject for each in index.descriptors if each.subject}
    counts: Counter[str] = Counter()
    for digest in subjects:
        passed = {digest}
        while (digest := subjects.get(digest, "")) and digest not in passed:
            passed.add(digest)
            counts[digest] += 1
    return counts


def _row(
    platform: str, digest: str, parts: dict[str, Image], configs: dict[str, dict[str, Any]], *, attestations: int = 0
) -> Row:
    part = parts.get(digest)
    size = len(part.body) + sum(each.size for each in (part.config, *part.layers)) if part else 0
    created = str(configs.get(digest, {}).get("created") or "")
    return Row(platform=platform, digest=digest, size=size, created=created, attestations=attestations)


def _called(descriptor: Descriptor) -> str:
    kind = "attestation" if descriptor.subject else str(descriptor.platform or "manifest")
    return f"{kind} {descriptor.digest[:19]}…"


def _cure(reference: Reference) -> str:
    return f"slipway backups {reference}" if reference.tag else ""
