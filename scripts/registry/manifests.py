"""Manifests and indexes as bytes: read them, and put platforms into an index without touching anything else.

An index is kept as the text that was received. Merging cuts descriptors out and puts others in; what stays keeps its
bytes, unknown fields and white space included, and so the same input gives the same digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from scripts.registry import platforms
from scripts.registry.errors import InvalidManifest, SourceRefused
from scripts.registry.platforms import Platform
from scripts.registry.references import DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES, IMAGES = {OCI_INDEX, DOCKER_LIST}, {OCI_MANIFEST, DOCKER_MANIFEST}
MAX_BYTES = 4 << 20
"""The largest manifest that a registry takes (distribution, maxManifestBodySize)."""

_SUBJECT = "vnd.docker.reference.digest"  # BuildKit, docs/attestations/attestation-storage.md
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """An element of an index or manifest; `text` is its JSON as received."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    text: str = field(default="", compare=False)

    @property
    def subject(self) -> str:
        """Return the digest of the image that this is an attestation of, or nothing."""
        return self.annotations.get(_SUBJECT, "")

    @property
    def runnable(self) -> bool:
        """Tell whether a client may choose it for its platform."""
        return bool(self.platform) and not self.subject and self.platform != Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a registry answered for a tag or digest."""

    media_type: str
    body: bytes

    @property
    def digest(self) -> str:
        """Return the content's own digest."""
        return digest_of(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Manifest):
    """The manifest of one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Manifest):
    """A list over platforms."""

    descriptors: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    def images(self) -> dict[Platform, Descriptor]:
        """Return the image that a client gets for each platform: the first (image-spec, image-index.md)."""
        found: dict[Platform, Descriptor] = {}
        for each in self.descriptors:
            if each.runnable and each.platform:
                found.setdefault(each.platform, each)
        return found

    def attestations(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the attestations of an image, and theirs."""
        subjects = _closure(self.descriptors, {digest})
        return tuple(each for each in self.descriptors if each.subject in subjects)

    def orphans(self) -> tuple[Descriptor, ...]:
        """Return the attestations of what is not in the index."""
        present = {each.digest for each in self.descriptors}
        return tuple(each for each in self.descriptors if each.subject and each.subject not in present)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a platform is to be: an image and its attestations."""

    platform: Platform
    image: Descriptor
    attestations: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of a platform; `before` is empty where it is new, and has two digests where there was a duplicate."""

    platform: Platform
    before: tuple[str, ...]
    after: str


def digest_of(body: bytes) -> str:
    """Return the sha256 digest of some bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def parse(body: bytes, media_type: str, *, name: str) -> Index | Image:
    """Read a manifest; `name` is what errors call it. Content that disagrees with its own media type is refused."""
    text, found = _load(body, name)
    kind = str(found.get("mediaType") or media_type.partition(";")[0].strip())
    parts, layers = array(found, "manifests"), array(found, "layers")
    if kind not in INDEXES | IMAGES:
        image = layers is not None and "config" in found and found.get("manifests") is None
        kind = OCI_MANIFEST if image else OCI_INDEX if parts is not None else kind
    if kind in INDEXES:
        if parts is None or found.get("config") is not None or found.get("layers") is not None:
            raise InvalidManifest(f"{name}: it says that it is an index, and has no list of manifests or one too many")
        texts = [text[start:end] for start, end in _elements(text, name)]
        return Index(
            media_type=kind,
            body=body,
            descriptors=tuple(_descriptor(each, text, name) for each, text in zip(parts, texts, strict=True)),
            annotations=_strings(found.get("annotations")),
        )
    if kind not in IMAGES or layers is None:
        raise InvalidManifest(f"{name}: {kind or 'content without a type'} is neither an image nor an index")
    config = _descriptor(found.get("config"), "", name)
    return Image(
        media_type=kind, body=body, config=config, layers=tuple(_descriptor(each, "", name) for each in layers)
    )


def array(found: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return a member that is an array, None where there is none. Go writes one without elements as null."""
    value = found.get(name, ...)
    if value is None:
        return []
    return value if isinstance(value, list) else None


def merge(target: Index, contributions: Iterable[Contribution]) -> tuple[Index, tuple[Change, ...]]:
    """Put platforms into an index: each takes the place of its predecessors, whose attestations go with them.

    Everything else keeps its bytes and its order. A Docker list becomes an OCI index if a new part needs that.
    """
    descriptors, changes = list(target.descriptors), []
    for wanted in contributions:
        descriptors, change = _put(descriptors, wanted)
        changes.append(change)
    media_type = target.media_type
    if media_type == DOCKER_LIST and any(each.media_type not in {DOCKER_MANIFEST, DOCKER_LIST} for each in descriptors):
        media_type = OCI_INDEX
    if tuple(descriptors) == target.descriptors and media_type == target.media_type:
        return target, tuple(changes)
    body = _render(target, descriptors, media_type)
    if len(body) > MAX_BYTES:
        raise SourceRefused(f"the merged index would have {len(body)} bytes, and registries take {MAX_BYTES}")
    merged = Index(media_type=media_type, body=body, descriptors=tuple(descriptors), annotations=target.annotations)
    lost = target.images().keys() - merged.images().keys()
    if lost:
        raise InvalidManifest(f"the merge would lose {', '.join(map(str, sorted(lost)))}; nothing was written")
    return merged, tuple(changes)


def empty_index(media_type: str = OCI_INDEX, annotations: Mapping[str, str] | None = None) -> Index:
    """Return an index without platforms, in the layout of BuildKit and buildx."""
    value = {"schemaVersion": 2, "mediaType": media_type, "manifests": []}
    if annotations:
        value["annotations"] = dict(annotations)
    body = json.dumps(value, indent=2).encode()
    return Index(media_type=media_type, body=body, descriptors=(), annotations=dict(annotations or {}))


def describe(image: Image, platform: Mapping[str, Any]) -> Descriptor:
    """Return an index's element for an image; `platform` is its configuration, or says the same."""
    names = ("architecture", "os", "os.version", "os.features", "variant")  # in the order of image-spec's Go types
    known = {name: platform[name] for name in names if platform.get(name)}
    value = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body), "platform": known}
    return _descriptor(value, json.dumps(value), image.digest)


def _put(descriptors: list[Descriptor], wanted: Contribution) -> tuple[list[Descriptor], Change]:
    before = [each for each in descriptors if each.runnable and each.platform == wanted.platform]
    change = Change(platform=wanted.platform, before=tuple(each.digest for each in before), after=wanted.image.digest)
    kept = next((each for each in before if each.digest == wanted.image.digest), None)
    image = kept or wanted.image
    rest = [each for each in descriptors if each not in before]
    gone = {each.digest for each in before} - {each.digest for each in rest}
    if kept and not wanted.attestations:
        gone.discard(kept.digest)
    stale = _closure(rest, gone)
    present = {each.digest: each for each in descriptors}
    new = [image, *(present.get(each.digest, each) for each in wanted.attestations)]
    added = {each.digest for each in new[1:]}
    place = descriptors.index(before[0]) if before else len(descriptors)

    def stays(each: Descriptor) -> bool:
        return each not in before and each.subject not in stale and (not each.subject or each.digest not in added)

    head, tail = filter(stays, descriptors[:place]), filter(stays, descriptors[place:])
    result = [*head, *new, *tail]
    if sorted(each.digest for each in result) == sorted(each.digest for each in descriptors):
        return descriptors, change  # the same parts: their order is the target's own
    return result, change


def _closure(descriptors: Iterable[Descriptor], digests: set[str]) -> set[str]:
    """Return `digests` with those of their attestations, and of theirs."""
    found, everything = set(digests), list(descriptors)
    while more := {each.digest for each in everything if each.subject in found} - found:
        found |= more
    return found


def _render(target: Index, descriptors: Sequence[Descriptor], media_type: str) -> bytes:
    text = target.body.decode()
    spans = _elements(text, "the target")
    (start, end) = _array(text, "the target")
    indented = "\n" in text
    own = {each.text for each in target.descriptors}
    parts = [each.text if each.text in own else layout(each.text, 4 if indented else None) for each in descriptors]
    if spans:
        lead, trail = text[start + 1 : spans[0][0]], text[spans[-1][1] : end - 1]
        comma = text[spans[0][1] : spans[1][0]] if len(spans) > 1 else f",{lead}"
    else:
        lead, comma, trail = ("\n    ", ",\n    ", "\n  ") if indented else ("", ",", "")
    text = f"{text[:start]}[{lead}{comma.join(parts)}{trail}]{text[end:]}"
    if media_type != target.media_type:
        key = {name: span for name, *span in _members(text, "the target")}.get("mediaType")
        if key:
            text = f"{text[: key[0]]}{json.dumps(media_type)}{text[key[1] :]}"
    return text.encode()


def layout(text: str, indent: int | None) -> str:
    """Lay JSON out anew, every token as it is: on one line, or as `json.dumps(indent=2)` does, `indent` columns in."""
    parts = _TOKEN.findall(text)
    if indent is None:
        return "".join(parts)
    out, depth = [], indent
    for index, part in enumerate(parts):
        following = parts[index + 1] if index + 1 < len(parts) else ""
        if part in {"{", "["} and following not in {"}", "]"}:
            depth += 2
            out.append(f"{part}\n{' ' * depth}")
        elif part in {"}", "]"} and parts[index - 1] not in {"{", "["}:
            depth -= 2
            out.append(f"\n{' ' * depth}{part}")
        else:
            out.append({",": f",\n{' ' * depth}", ":": ": "}.get(part, part))
    return "".join(out)


def _load(body: bytes, name: str) -> tuple[str, dict[str, Any]]:
    try:
        text = body.decode()
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"{name}: it is no JSON") from error
    if not isinstance(found, dict):
        raise InvalidManifest(f"{name}: it is no manifest")
    return text, found


def _descriptor(value: Any, text: str, name: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidManifest(f"{name}: one of its descriptors is none")
    digest, size, platform = value.get("digest"), value.get("size"), value.get("platform")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise InvalidManifest(f"{name}: a descriptor has no valid digest and size ({str(digest)[:80]})")
    return Descriptor(
        media_type=str(value.get("mediaType") or ""),
        digest=digest,
        size=size,
        platform=platforms.from_json(platform) if isinstance(platform, dict) else None,
        annotations=_strings(value.get("annotations")),
        text=text,
    )


def _strings(value: Any) -> dict[str, str]:
    return {key: each for key, each in value.items() if isinstance(each, str)} if isinstance(value, dict) else {}


def _array(text: str, name: str) -> tuple[int, int]:
    """Return where the array `manifests` begins and ends."""
    spans = [(start, end) for key, start, end in _members(text, name) if key == "manifests"]
    if len(spans) != 1:  # parsers differ in which of two they take
        raise InvalidManifest(f"{name}: it has {len(spans)} lists of manifests")
    return spans[0]


def _elements(text: str, name: str) -> list[tuple[int, int]]:
    start, end = _array(text, name)
    spans: list[tuple[int, int]] = []
    if text[start] != "[":  # null
        return spans
    position = _skip(text, start + 1)
    while position < end - 1:
        _, stop = _DECODER.raw_decode(text, position)
        spans.append((position, stop))
        position = _skip(text, _skip(text, stop) + 1)
    return spans


def _members(text: str, name: str) -> Iterator[tuple[str, int, int]]:
    """Yield the members of the outermost object: key, and where its value begins and ends. `text` is valid JSON."""
    position = _skip(text, _skip(text, 0) + 1)
    if text[_skip(text, 0)] != "{":
        raise InvalidManifest(f"{name}: it is no manifest")
    while text[position] != "}":
        key, position = scanstring(text, position + 1, True)
        start = _skip(text, _skip(text, position) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield key, start, end
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position
