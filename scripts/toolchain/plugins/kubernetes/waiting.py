"""Waiting: until an object is ready after it was applied, until it is gone after it was deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from scripts.toolchain.plugins.kubernetes import readiness
from scripts.toolchain.plugins.kubernetes.errors import NotReady, Refused
from scripts.toolchain.plugins.kubernetes.kinds import ENDPOINT_SLICE, POD, STORAGE_CLASS
from scripts.toolchain.plugins.kubernetes.objects import SKIP_AWAIT, TIMEOUT_SECONDS, annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.toolchain.plugins.kubernetes.api import Api
    from scripts.toolchain.plugins.kubernetes.kinds import Kind
    from scripts.toolchain.plugins.kubernetes.readiness import Verdict

DEFAULT_TIMEOUT_S = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def timeout_s(inputs: Mapping[str, Any], custom_s: float) -> float:
    """Return how long to wait: customTimeouts, or the object's annotation, or ten minutes."""
    return custom_s or float(annotation(inputs, TIMEOUT_SECONDS) or DEFAULT_TIMEOUT_S)


def is_skipped(inputs: Mapping[str, Any]) -> bool:
    """Tell whether the program wants no wait for an object."""
    return annotation(inputs, SKIP_AWAIT) == "true"


async def until_ready(api: Api, kind: Kind, live: dict[str, Any], *, within_s: float) -> dict[str, Any]:
    """Return the object as it is once it is ready; raise NotReady with what it lacks."""
    namespace, name = live["metadata"].get("namespace"), live["metadata"]["name"]
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + within_s, _FIRST_PAUSE_S
    while True:
        verdict = await judge(api, kind, live)
        if verdict.is_ready:
            return live
        if verdict.is_final or loop.time() >= end:
            raise NotReady(await explain(api, kind, live, verdict, after_s=within_s))
        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        found = await api.find(kind, namespace, name)
        if found is None:
            raise NotReady(f"{kind.name} {name}: somebody deleted it while it was waited for")
        live = found


async def judge(api: Api, kind: Kind, live: Mapping[str, Any]) -> Verdict:
    """Look once, at the object and at what it hangs on."""
    namespace = live["metadata"].get("namespace")
    match kind.name:
        case "Deployment":
            return readiness.deployment(live)
        case "Service":
            return readiness.service(live, await _slices(api, namespace, live["metadata"]["name"]))
        case "Ingress":
            names = readiness.backends(live)
            return readiness.ingress(
                live, [each for each in names if not readiness.has_endpoint(await _slices(api, namespace, each))]
            )
        case "PersistentVolumeClaim":
            bound = (live.get("status") or {}).get("phase") == "Bound"
            return readiness.claim(live, None if bound else await _storage_class(api, live))
        case "Namespace":
            return readiness.namespace(live)
        case _:
            return readiness.READY


async def explain(api: Api, kind: Kind, live: Mapping[str, Any], verdict: Verdict, *, after_s: float = 0) -> str:
    """Tell what an object waits for, with what its pods say."""
    waited = "" if verdict.is_final or not after_s else f" after {after_s:.0f} s"
    lines = [f"{kind.name} {live['metadata']['name']}: not ready{waited}, waits for {verdict.waiting_for}"]
    if kind.name == "Deployment":
        labels = ((live["spec"].get("selector") or {}).get("matchLabels")) or {}
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        pods = await api.items(POD, live["metadata"]["namespace"], labelSelector=selector)
        lines += readiness.pod_problems(pods)
    return "; ".join(lines)


async def until_gone(api: Api, kind: Kind, namespace: str | None, name: str, *, uid: str, within_s: float) -> None:
    """Wait until a deleted object is gone, or another one has its name; raise NotReady with what holds it."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + within_s, _FIRST_PAUSE_S
    while (live := await api.find(kind, namespace, name)) is not None:
        if uid and live["metadata"].get("uid") != uid:
            return
        if loop.time() >= end:
            holds = ", ".join(live["metadata"].get("finalizers") or (live.get("spec") or {}).get("finalizers") or ())
            raise NotReady(f"{kind.name} {name}: still there after {within_s:.0f} s, held by {holds or 'the server'}")
        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


async def _slices(api: Api, namespace: str, service: str) -> list[dict[str, Any]]:
    return await api.items(ENDPOINT_SLICE, namespace, labelSelector=f"kubernetes.io/service-name={service}")


async def _storage_class(api: Api, claim: Mapping[str, Any]) -> dict[str, Any] | None:
    name = claim["spec"].get("storageClassName")
    try:
        if name:
            return await api.find(STORAGE_CLASS, None, name)
        found = await api.items(STORAGE_CLASS, None)
    except Refused as error:
        if error.code == 403:  # it is the cluster's, and a user may have a namespace alone: then Bound it has to be
            return {}
        raise
    return next(
        (each for each in found if (each["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"), None
    )
