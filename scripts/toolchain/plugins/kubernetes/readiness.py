"""When an object is what it should be, and what keeps it from being so (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ENDED_BADLY = frozenset({
    "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "Error", "OOMKilled",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`waiting_for`: empty when ready. `is_final`: waiting on helps nothing."""

    waiting_for: str = ""
    is_final: bool = False

    @property
    def is_ready(self) -> bool:
        """Tell whether nothing is waited for."""
        return not self.waiting_for


READY = Verdict()


def deployment(live: Mapping[str, Any]) -> Verdict:
    """Want the newest revision rolled out, all of its pods available, and none of an older one."""
    spec, status = live.get("spec") or {}, live.get("status") or {}
    if spec.get("paused"):
        return READY
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 1):
        return Verdict(waiting_for="the controller to see the change")
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    progressing, available = conditions.get("Progressing", {}), conditions.get("Available", {})
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Verdict(waiting_for=progressing.get("message") or "progress deadline exceeded", is_final=True)
    wanted = spec.get("replicas", 1)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    if updated < wanted or total > updated or status.get("availableReplicas", 0) < updated:
        return Verdict(
            waiting_for=f"its pods: {status.get('availableReplicas', 0)} of {wanted} available, {updated} new"
        )
    if progressing and progressing.get("reason") != "NewReplicaSetAvailable":
        return Verdict(waiting_for="the new revision to be available")
    if available.get("status") != "True":
        return Verdict(waiting_for=available.get("message") or "minimum availability")
    return READY


def service(live: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> Verdict:
    """Want an endpoint behind it, and an address in front of a load balancer."""
    spec = live.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return READY
    is_headless_alone = spec.get("clusterIP") == "None" and not spec.get("selector")
    if not is_headless_alone and not has_endpoint(slices):
        return Verdict(waiting_for="a ready pod behind it")
    if spec.get("type") == "LoadBalancer" and not _has_address(live):
        return Verdict(waiting_for="the load balancer's address")
    return READY


def ingress(live: Mapping[str, Any], endless: Iterable[str]) -> Verdict:
    """Want an address, and an endpoint behind every path; `endless` names the services that have none."""
    if names := sorted(endless):
        return Verdict(waiting_for=f"endpoints of service {', '.join(names)}")
    return READY if _has_address(live) else Verdict(waiting_for="an address from the ingress controller")


def claim(live: Mapping[str, Any], storage_class: Mapping[str, Any] | None) -> Verdict:
    """Want it bound, or left waiting for its first pod by a class that works so."""
    phase = (live.get("status") or {}).get("phase", "Pending")
    if phase == "Lost":
        return Verdict(waiting_for="the volume that it was bound to and that is gone", is_final=True)
    if phase == "Bound" or (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer":
        return READY
    return Verdict(waiting_for="a volume" if storage_class else "a volume, and there is no storage class of that name")


def namespace(live: Mapping[str, Any]) -> Verdict:
    """Want it to take objects."""
    phase = (live.get("status") or {}).get("phase", "Active")
    return READY if phase == "Active" else Verdict(waiting_for=f"the namespace, which is {phase}")


def has_endpoint(slices: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether an endpoint of the slices takes traffic."""
    return any(
        endpoint.get("addresses") and (endpoint.get("conditions") or {}).get("ready", True) is not False
        for each in slices
        for endpoint in each.get("endpoints") or ()
    )


def backends(live: Mapping[str, Any]) -> set[str]:
    """Return the services that an Ingress leads to."""
    spec = live.get("spec") or {}
    paths = [path for rule in spec.get("rules") or () for path in (rule.get("http") or {}).get("paths") or ()]
    found = [spec.get("defaultBackend") or {}, *(path.get("backend") or {} for path in paths)]
    return {each["service"]["name"] for each in found if each.get("service")}


def pod_problems(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what keeps pods from running, a line each: what a user would look for with kubectl describe."""
    found = []
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        found += [
            f"pod {name}: {condition.get('message') or condition.get('reason')}"
            for condition in status.get("conditions") or ()
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ]
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            for state in (container.get("state") or {}, container.get("lastState") or {}):
                if problem := _container_problem(state):
                    found.append(f"pod {name}, container {container['name']}: {problem}")
                    break
    return found


def _container_problem(state: Mapping[str, Any]) -> str:
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting.get("reason") in _ENDED_BADLY:
        return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
    if ended and (ended.get("exitCode") or ended.get("reason") in _ENDED_BADLY):
        told = (ended.get("message") or "").strip()
        return f"{ended.get('reason') or 'ended'} (exit {ended.get('exitCode')})" + (f": {told}" if told else "")
    return ""


def _has_address(live: Mapping[str, Any]) -> bool:
    balancer = (live.get("status") or {}).get("loadBalancer") or {}
    return any(each.get("ip") or each.get("hostname") for each in balancer.get("ingress") or ())
