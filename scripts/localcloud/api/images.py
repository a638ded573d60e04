"""/images: the catalog's system images and snapshots of servers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scripts.localcloud import catalog
from scripts.localcloud.api.call import (
    Call,
    Reply,
    Routes,
    action_json,
    check_labels,
    created,
    listing,
    no_content,
    ok,
    timestamp,
)
from scripts.localcloud.errors import ApiError, not_found, protected
from scripts.localcloud.records import Image, Resource

if TYPE_CHECKING:
    from scripts.localcloud.cloud import Cloud


def routes() -> Routes:
    """Give the calls of this resource."""
    return {
        "GET /images": list_images,
        "GET /images/{id}": get,
        "PUT /images/{id}": update,
        "DELETE /images/{id}": delete,
        "POST /images/{id}/actions/change_protection": change_protection,
    }


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change."""

    description: str | None = None
    type: Literal["snapshot"] | None = None
    labels: dict[str, str] | None = None


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """Body of change_protection."""

    delete: bool | None = None


def list_images(cloud: Cloud, call: Call) -> Reply:
    """List images; deprecated ones only when asked."""
    types, architectures = call.all("type"), call.all("architecture")
    wanted = [
        image
        for image in (*catalog.IMAGES, *cloud.store.all(Image))
        if (not types or image.type in types)
        and (not architectures or image.architecture in architectures)
        and (image.deprecated is None or call.flag("include_deprecated"))
        and not call.all("bound_to")
    ]
    return listing(call, "images", wanted, to_json)


def get(cloud: Cloud, call: Call) -> Reply:
    """Show one image."""
    return ok(image=to_json(_find(cloud, call)))


def update(cloud: Cloud, call: Call) -> Reply:
    """Change description or labels of a snapshot."""
    image, body = _own(_find(cloud, call)), call.decode(Update)
    if body.description is not None:
        image = replace(image, description=body.description)
    if body.labels is not None:
        image = replace(image, labels=check_labels(body.labels))
    return ok(image=to_json(cloud.store.put(image)))


def delete(cloud: Cloud, call: Call) -> Reply:
    """Remove a snapshot; servers made from it stay."""
    image = _own(_find(cloud, call))
    if image.protected:
        raise protected("image", "deletion")
    cloud.store.remove(image)
    cloud.close_meters(image.id)
    return no_content()


def change_protection(cloud: Cloud, call: Call) -> Reply:
    """Protect against deletion, or no longer."""
    image, body = _own(_find(cloud, call)), call.decode(Protection)
    if body.delete is not None:
        cloud.store.put(replace(image, protected=body.delete))
    action = cloud.actions.at_once("change_protection", Resource(type="image", id=image.id))
    return created(action=action_json(cloud, action))


def find(cloud: Cloud, name_or_id: str | int, architecture: str) -> Image | None:
    """Find the image that a body names: by id, or the system image of that name for an architecture."""
    images = (*catalog.IMAGES, *cloud.store.all(Image))
    by_id = next((image for image in images if str(image.id) == str(name_or_id)), None)
    by_name = (image for image in images if image.name == name_or_id and image.architecture == architecture)
    return by_id or next(by_name, None)


def to_json(image: Image) -> dict[str, Any]:
    """Write an image in wire form."""
    source = {"id": image.created_from, "name": image.created_from_name} if image.created_from else None
    deprecation = None
    if image.deprecated:
        after = image.deprecated.replace(year=image.deprecated.year + 1)
        deprecation = {"announced": timestamp(image.deprecated), "unavailable_after": timestamp(after)}
    return {
        "id": image.id,
        "type": image.type,
        "status": image.status,
        "name": image.name,
        "description": image.description,
        "image_size": image.image_size,
        "disk_size": image.disk_size,
        "created": timestamp(image.created),
        "created_from": source,
        "bound_to": None,
        "os_flavor": image.os_flavor,
        "os_version": image.os_version,
        "architecture": image.architecture,
        "rapid_deploy": image.type == "system",
        "protection": {"delete": image.protected},
        "deprecation": deprecation,
        "deleted": None,
        "labels": image.labels,
    }


def _find(cloud: Cloud, call: Call) -> Image:
    found = next((image for image in catalog.IMAGES if image.id == call.id()), None) or cloud.store.get(
        Image, call.id()
    )
    if found is None:
        raise not_found("image", call.id())
    return found


def _own(image: Image) -> Image:
    if image.type == "system":
        raise ApiError("forbidden", f"image {image.name} is a system image and cannot be changed")
    return image
