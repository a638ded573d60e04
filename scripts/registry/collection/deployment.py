"""A registry's Deployment as its keeper: the mode is a ConfigMap that one collection at a time owns.

The ConfigMap is made when a collection begins and deleted when it ends. Its annotations name the owner, who renews a
count in it; where the count stands still, the owner is dead, and the next collection takes it over (compare and swap by
resourceVersion). No clock is compared with another.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from scripts.registry import mode
from scripts.registry.collection.keepers import read_server
from scripts.registry.errors import CollectionStopped, Locked, NotFound, PlaceUnreachable, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scripts.registry.collection.cluster import Api
    from scripts.registry.collection.places import Done, Place
    from scripts.registry.collection.server import Server

OWNER, BEAT = "slipway.dev/owner", "slipway.dev/beat"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
_MANAGER = "slipway-gc"
_BEAT_S, _STALE_S = 5.0, 30.0
_ROLL_S, _PAUSE_S = 180.0, 0.5
_MERGE = "application/strategic-merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The one pod of a Deployment, for commands."""

    find: Callable[[], tuple[str, str]]
    api: Api
    namespace: str
    name: str

    def sh(self, script: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 600) -> Done:
        """Run a script with sh in the registry's container and wait for its end."""
        pod, container = self.find()
        command = ["sh", "-c", script, "slipway", *arguments]
        return self.api.exec(self.namespace, pod, container, command, stdin=stdin, timeout_s=timeout_s)


class DeploymentKeeper:
    """A Deployment of one registry:2 pod that takes its mode from the ConfigMap, as mode.py tells."""

    def __init__(self, api: Api, *, namespace: str, name: str, say: Callable[[str], None]) -> None:
        self._api = api
        self._say = say
        self._namespace = namespace
        self._name = name
        self._me = uuid4().hex
        self._lost = threading.Event()
        self._mode: Mapping[str, str] = {}
        self.place: Place = Pod(find=self._pod, api=api, namespace=namespace, name=f"deployment {namespace}/{name}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Own the ConfigMap and renew it until the end; Locked where somebody else renews it."""
        self._acquire()
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(done,), daemon=True)
        renewing.start()
        try:
            yield
            self._mode = {}  # also where it was only found, and had expired
        finally:
            done.set()
            renewing.join()
            if not self._mode:  # else it tells the next one what is still to be restored
                self._release()

    def server(self) -> Server:
        """Return the process in the one pod; a roll that somebody else has begun is waited for."""
        generation = self._deployment()["metadata"]["generation"]
        deadline, told = time.monotonic() + _ROLL_S, False
        while why := self._unfinished(generation):
            self.still_held()
            if not told:
                self._say(f"waiting for one pod that is ready: {why}; {_ROLL_S:.0f} s at most")
                told = True
            if time.monotonic() > deadline:
                raise PlaceUnreachable(
                    f"{self.place.name}: it has not one pod that is ready, after {_ROLL_S:.0f} s: {why}",
                    hint=f"kubectl -n {self._namespace} describe deployment {self._name}",
                )
            time.sleep(_PAUSE_S)
        return read_server(self.place)

    def roll(self, wanted: Mapping[str, str]) -> Server:
        """Write the mode, let new pods take it, and wait until one pod is left, which has it."""

        def write(found: dict[str, Any]) -> None:
            found["data"] = dict(wanted)

        self._update(write)
        self._mode = wanted or self._mode
        template = {"metadata": {"annotations": {RESTARTED: datetime.now(UTC).isoformat(timespec="milliseconds")}}}
        status, found = self._api.call(
            "PATCH", f"{self._path}?fieldManager={_MANAGER}", {"spec": {"template": template}}, kind=_MERGE
        )
        self._found(status, found)
        generation = found["metadata"]["generation"]
        until = int(wanted.get(mode.UNTIL, "0"))
        deadline, why = time.monotonic() + _ROLL_S, ""
        while time.monotonic() < deadline:
            self.still_held()
            try:
                why = self._unfinished(generation)
                if not why:
                    server = read_server(self.place)
                    if server.until == until:
                        self._mode = wanted
                        return server
                    why = "its pod has not the mode that was asked for: its container must run the entrypoint of docs/gc.md"
            except PlaceUnreachable as error:
                why = str(error)
            time.sleep(_PAUSE_S)
        raise PlaceUnreachable(f"{self.place.name}: it was not rolled within {_ROLL_S:.0f} s: {why}")

    def still_held(self) -> None:
        """Raise Locked where another collection has taken the ConfigMap over."""
        if self._lost.is_set():
            raise Locked(f"{self.place.name}: another collection has taken over", hint="let that one end")

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an event about the Deployment."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {"generateName": f"{self._name}-gc-", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": "apps/v1", "kind": "Deployment", "namespace": self._namespace, "name": self._name,
            },
            "reason": reason,
            "message": message[:1000],
            "type": "Warning" if warning else "Normal",
            "source": {"component": _MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }  # fmt: skip
        status, found = self._api.call("POST", f"/api/v1/namespaces/{self._namespace}/events", event)
        if status >= 300:
            raise PlaceUnreachable(f"{self.place.name}: {found.get('message', status)}")

    @property
    def _path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{self._name}"

    @property
    def _maps(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps"

    @property
    def _map(self) -> str:
        return f"{self._maps}/{mode.config_map(self._name)}"

    def _acquire(self) -> None:
        """Make the ConfigMap, or take over the one of a collection that died."""
        self._deployment()  # a wrong name is told before anything is made
        mine = {
            "metadata": {"name": mode.config_map(self._name), "annotations": {OWNER: self._me, BEAT: "0"}},
            "data": {},
        }
        seen, since = "", time.monotonic()
        while True:
            status, found = self._api.call("POST", self._maps, mine)
            if status in {200, 201}:
                return
            if status != 409:
                raise PlaceUnreachable(
                    f"{self.place.name}: its mode cannot be written ({found.get('message', status)})"
                )
            status, found = self._api.call("GET", self._map)
            if status == 404:
                continue
            annotations = found["metadata"].setdefault("annotations", {})
            beat = f"{annotations.get(OWNER)} {annotations.get(BEAT)}"
            if not seen:
                seen = beat
            if beat != seen:
                raise Locked(
                    f"{self.place.name}: another collection is at work", hint="let that one end, then run this"
                )
            if time.monotonic() - since > _STALE_S:
                annotations |= {OWNER: self._me, BEAT: "0"}
                status, _ = self._api.call("PUT", self._map, found)
                if status == 200:
                    self._mode = found.get("data") or {}
                    return
                seen = "?"  # somebody was faster
            time.sleep(_BEAT_S / 2)

    def _renew(self, done: threading.Event) -> None:
        count = 0

        def write(found: dict[str, Any]) -> None:
            found["metadata"]["annotations"][BEAT] = str(count)

        while not done.wait(_BEAT_S):
            count += 1
            try:
                self._update(write)
            except Locked:
                return
            except RegistryError:  # the API server is away: the next time tells
                continue

    def _release(self) -> None:
        try:
            status, found = self._api.call("GET", self._map)
            if status == 200 and found["metadata"].get("annotations", {}).get(OWNER) == self._me:
                preconditions = {"resourceVersion": found["metadata"]["resourceVersion"]}
                self._api.call("DELETE", self._map, {"preconditions": preconditions})
        except PlaceUnreachable:  # it will be taken over
            return

    def _update(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the ConfigMap, if it is still ours; again where somebody wrote it in between."""
        while True:
            status, found = self._api.call("GET", self._map)
            if status == 404 or found["metadata"].get("annotations", {}).get(OWNER) != self._me:
                self._lost.set()
                self.still_held()
            change(found)
            status, found = self._api.call("PUT", self._map, found)
            if status == 200:
                return
            if status not in {404, 409}:
                raise PlaceUnreachable(
                    f"{self.place.name}: its mode cannot be written ({found.get('message', status)})"
                )

    def _deployment(self) -> dict[str, Any]:
        status, found = self._api.call("GET", self._path)
        self._found(status, found)
        replicas = found["spec"].get("replicas", 1)
        if replicas != 1:
            raise CollectionStopped(
                f"{self.place.name}: it has {replicas} replicas, and all but one would go on writing",
                hint=f"kubectl -n {self._namespace} scale deployment {self._name} --replicas 1",
            )
        return found

    def _found(self, status: int, found: Mapping[str, Any]) -> None:
        if status == 404:
            raise NotFound(
                f"{self.place.name}: there is none",
                hint="see --namespace and --deployment, and the kubeconfig's context",
            )
        if status >= 300:
            raise PlaceUnreachable(f"{self.place.name}: {found.get('message', status)}")

    def _pods(self, deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        selector = quote(",".join(f"{name}={value}" for name, value in labels.items()))
        status, found = self._api.call("GET", f"/api/v1/namespaces/{self._namespace}/pods?labelSelector={selector}")
        self._found(status, found)
        over = {"Succeeded", "Failed"}
        return [each for each in found["items"] if each.get("status", {}).get("phase") not in over]

    def _pod(self) -> tuple[str, str]:
        """Return the one pod and the registry's container, by its name: what is injected into pods may come before it."""
        deployment = self._deployment()
        pods = self._pods(deployment)
        if len(pods) != 1:
            raise PlaceUnreachable(
                f"{self.place.name}: it has {len(pods)} pods, not one", hint="wait until it is rolled"
            )
        containers = deployment["spec"]["template"]["spec"]["containers"]
        ours = next((each for each in containers if self._takes_mode(each)), containers[0])
        return pods[0]["metadata"]["name"], ours["name"]

    def _takes_mode(self, container: Mapping[str, Any]) -> bool:
        maps = [each.get("configMapRef") or {} for each in container.get("envFrom") or ()]
        return mode.config_map(self._name) in [each.get("name") for each in maps]

    def _unfinished(self, generation: int) -> str:
        """Return what a roll still waits for; nothing: it is done, and one pod is left."""
        deployment = self._deployment()
        status = deployment.get("status", {})
        if status.get("observedGeneration", 0) < generation or status.get("updatedReplicas", 0) < 1:
            return "no new pod yet"
        pods = self._pods(deployment)
        for each in pods:
            for container in each.get("status", {}).get("containerStatuses", ()):
                waiting = container.get("state", {}).get("waiting")
                if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
                    return (
                        f"pod {each['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
                    )
        if len(pods) != 1 or status.get("replicas") != 1:
            return f"{len(pods)} pods"
        conditions = {each["type"]: each["status"] for each in pods[0].get("status", {}).get("conditions", ())}
        return "" if conditions.get("Ready") == "True" else f"pod {pods[0]['metadata']['name']} is not ready"
