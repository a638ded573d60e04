"""One collection, step by step; each step may be the last one, and then nothing is lost and the registry takes writes again.

Mark, back up, wait for quiet, roll to read-only and prove it, mark again, take links away, ask the registry's own
collection what it would delete, let it, roll back, look whether all is there that must be, verify every tag.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from scripts.registry import backup, exchange, maintenance, manifests, mode, output, records
from scripts.registry.collection import commands, damage, gate, quiet, reading
from scripts.registry.collection.places import Within
from scripts.registry.collection.plan import LOST_TAG, Plan, Rules, plan
from scripts.registry.collection.report import Report
from scripts.registry.errors import (
    CollectionStopped,
    Locked,
    PlaceUnreachable,
    ReadOnly,
    RegistryError,
    RegistryFailed,
    RegistryUnreachable,
    StoreDamaged,
    VerificationFailed,
)
from scripts.registry.references import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from scripts.registry.backup import Policy
    from scripts.registry.collection.keepers import Keeper
    from scripts.registry.collection.places import Done, Place
    from scripts.registry.collection.server import Server
    from scripts.registry.collection.store import Repository, Store
    from scripts.registry.exchange import Protocol, Response

HOLD = "slipway-hold"
"""The repository that holds, during a sweep, what is to stay and has no manifest; the name is nobody else's."""

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_PROOFS = 3
_BATCH = 512
_BACKUP_KIB = 128
"""What a backup of a tag takes at most, in files of a few hundred bytes, by the blocks of a disk."""
_READINGS = 3
_PROVE_S, _RESTORE_S, _PAUSE_S = 30.0, 120.0, 0.5
_QUIET_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted. Times are in seconds; without a policy no backups are taken; with `quiet_s` 0 nothing is waited for."""

    host: str
    rules: Rules
    policy: Policy | None
    quiet_s: float
    quiet_deadline_s: float
    stop_limit_s: int
    largest_share: float
    dry_run: bool
    token: str


class Collection:
    """One run. `ask` runs a protocol on connections of its own; `say` tells what is being done."""

    def __init__(
        self,
        keeper: Keeper,
        order: Order,
        *,
        ask: Callable[[Callable[[], Protocol[Any]]], Any],
        say: Callable[[str], None],
    ) -> None:
        self._keeper = keeper
        self._order = order
        self._ask = ask
        self._say = say
        self._report = Report(dry_run=order.dry_run)
        self._began = time.monotonic()

    def run(self) -> Report:
        """Collect."""
        report, order = self._report, self._order
        if order.dry_run:
            server = self._keeper.server()
            server.check()
            report.plan = self._begin(server)[1]
            return report
        with self._keeper.held():
            server = self._usual(self._keeper.server())
            server.check()
            store, report.plan = self._begin(server)
            self._part("mark")
            if not server.deletes:
                report.notes.append("the registry's API deletes nothing; a collection does all the same")
            self._reach(report.plan)
            if order.policy:
                self._back_up(server, store, report.plan, order.policy)
            if report.plan.unlink or report.plan.untag or report.plan.frees:
                self._wait_for_quiet(server)
                swept = self._without_writes(server, store)
                self._check(server, swept, report.plan)
                self._verify(server, swept, report.plan)
            self._part("")
        return report

    def _reach(self, found: Plan) -> None:
        """See that the name, the authority and the login lead to a registry, before it is stopped for them."""
        for name, tag in list(found.kept_tags)[:1]:
            self._ask(partial(_read_tags, {Reference(host=self._order.host, repository=name, tag=tag): ""}))

    def _usual(self, server: Server) -> Server:
        """Bring a registry back that a run which died has left in its mode, with what may still collect there."""
        if not server.until:
            return server
        self._say("a run that died left the registry read-only; restoring it first")
        return self._restore(server)

    def _begin(self, server: Server) -> tuple[Store, Plan]:
        """Mark, and note what is left alone."""
        store, found = self._mark(server)
        spared = damage.spared(store, grace_s=self._order.rules.grace_s)
        self._report.notes += [f"{each} (in {server.folder})" for each in spared]
        return store, found

    def _mark(self, server: Server, *, before: Store | None = None) -> tuple[Store, Plan]:
        """Read the storage and plan; StoreDamaged where something is wrong with it.

        `before` is the storage as it was before this run stopped the writes, once it has.
        """
        self._refuse_claimed(server)
        store = self._undamaged(server, before)
        found = plan(store, self._order.rules)
        self._report.blobs_before = len(store.blobs)
        self._report.bytes_before = sum(each.size for each in store.blobs.values())
        gate.check_share(len(found.frees), len(store.blobs), largest=self._order.largest_share)
        return store, found

    def _refuse_claimed(self, server: Server) -> None:
        """See that the repository that is made and removed here is nobody's."""
        claimed = self._storage(server).sh(commands.CLAIMED, HOLD).text.splitlines()
        if claimed:
            raise CollectionStopped(
                f"somebody has the repository {HOLD}, whose name the collection needs ({claimed[0]})",
                hint=f"rename it, while nobody pushes: cd {server.folder}/repositories && mv {HOLD} ANOTHER-NAME",
            )

    def _undamaged(self, server: Server, before: Store | None) -> Store:
        """Read the storage. Unless this run itself has stopped the writes, only what was wrong each time is damage.

        No reading is of one moment: of a push that ends meanwhile it may have the tag, and not yet the manifest's link.
        A registry that somebody else has made read-only is in the middle of a collection.
        """
        known = before
        self._say("reading the storage")
        lasting: Sequence[damage.Damage] = ()
        for number in range(1 if before else _READINGS):
            if number:
                seen = f"{lasting[0].where}: {lasting[0].what}"
                self._say(f"reading it again, as a push may be going on ({seen})")
                time.sleep(_PAUSE_S)
            store = reading.read(self._storage(server), known=known.references if known else None)
            store.repositories.pop(HOLD, None)
            found = damage.find(store)
            lasting = [each for each in found if not number or each in lasting]
            if not lasting:
                return store
            known = store
        raise StoreDamaged(
            f"the registry's storage is damaged in {len(lasting)} {'places' if len(lasting) > 1 else 'place'}; "
            "nothing was collected",
            damages=tuple(lasting),
            hint=f"the commands are for {server.folder}, while nobody pushes; then run this again",
        )

    def _back_up(self, server: Server, store: Store, found: Plan, policy: Policy) -> None:
        """Back up every tag that has no backup of what it names, and what lost its tag and had a platform that the tag lacks."""
        now = datetime.fromtimestamp(store.now, UTC)
        due = [name for name, each in sorted(store.repositories.items()) if _due(each)]
        if due:
            self._say(f"backing up {len(due)} {'repositories' if len(due) > 1 else 'repository'}")
        tags = sum(len(store.repositories[name].tags) for name in due)
        free_kib = int(self._storage(server).sh(commands.FREE).text or 0)
        if free_kib < _BACKUP_KIB * (tags + 1):  # what is written to a full disk is damage
            self._report.notes.append(
                f"no backups were taken: {output.size(free_kib << 10)} are free on the registry's disk"
            )
            return
        for name in due:
            repository = Reference(host=self._order.host, repository=name)
            try:
                backed = self._ask(
                    partial(backup.backup, repository, policy=policy, now=now, token=f"{self._order.token}-{name}")
                )
            except RegistryError as error:
                self._report.notes.append(f"{name}: not backed up: {error}")
                continue
            self._report.backups += [str(each.reference) for each in backed.taken]
            self._report.notes += [f"{name}:{tag}: not backed up: {why}" for tag, why in backed.failed.items()]
        for (name, digest), reason in found.kept.items():
            if reason == LOST_TAG:
                self._rescue(store, name, digest)
        self._part("backup")

    def _rescue(self, store: Store, name: str, digest: str) -> None:
        for tag, found in store.repositories[name].tags.items():
            lost_at = dict(found.displaced()).get(digest)
            if not lost_at or tag.startswith(records.PREFIX):
                continue
            place = Reference(host=self._order.host, repository=name, tag=tag)
            had = datetime.fromtimestamp(lost_at - 1, UTC)
            try:
                taken = self._ask(partial(backup.rescue, place, digest, had=had))
            except RegistryError as error:
                self._report.notes.append(f"{place}: what it lost is not backed up: {error}")
                continue
            if taken:
                self._report.backups.append(str(taken.reference))

    def _wait_for_quiet(self, server: Server) -> None:
        """Wait until nobody has written for a while, or until that was waited for long enough."""
        order = self._order
        if not order.quiet_s:
            return
        self._say(f"waiting until nobody has pushed for {order.quiet_s:.0f} s, {order.quiet_deadline_s:.0f} s at most")
        began = last = time.monotonic()
        counted: float | None = None
        while time.monotonic() - last < order.quiet_s:
            if time.monotonic() - began > order.quiet_deadline_s:
                self._report.notes.append(f"pushes never paused for {order.quiet_s:.0f} s; they had to wait")
                break
            self._keeper.still_held()
            uploads = self._storage(server).sh(quiet.UPLOADS)
            busy = quiet.busy_uploads(uploads.text, quiet_s=order.quiet_s)
            if server.metrics:
                writes = quiet.writes(self._keeper.place.sh(commands.METRICS, server.metrics).text)
                busy += counted is not None and writes != counted
                counted = writes
            if busy:
                last = time.monotonic()
            time.sleep(min(_QUIET_PAUSE_S, order.quiet_s / 4))
        self._part("quiet")

    def _without_writes(self, server: Server, store: Store) -> Store:
        """Roll to read-only, collect, and roll back, whatever happens; the storage before it was swept."""
        now = self._keeper.server().now
        until = now + self._order.stop_limit_s
        self._say("rolling the registry to read-only")
        try:
            server = self._keeper.roll(mode.read_only(until))
            self._prove(store, read_only=True)
            self._stopped("roll")
            swept = self._collect(server, store)
        except Locked:  # whoever has taken over restores it
            raise
        except BaseException as error:
            self._say("restoring the registry")
            try:
                self._restore(server)
            except RegistryError as failed:
                when = datetime.fromtimestamp(until, UTC)
                raise CollectionStopped(
                    f"{error}; and the registry stays read-only until {when:%H:%M:%S} UTC, when it becomes writable "
                    f"by itself: {failed}",
                    hint=getattr(error, "hint", None),
                ) from error
            raise
        self._say("rolling the registry back")
        self._restore(server)
        self._prove(store, read_only=False)
        self._stopped("back")
        return swept

    def _collect(self, server: Server, before: Store) -> Store:
        """Take away what is planned now, with nobody writing; the storage before that."""
        report, storage = self._report, self._storage(server)
        store, found = self._mark(server, before=before)
        self._remove(storage, server, [f"repositories/{HOLD}"])
        report.plan = found
        self._stopped("mark")
        held = self._hold(storage, server, found)
        try:
            self._sweep(storage, server, store, found)
        finally:
            with suppress(RegistryError):  # the next run removes what is left of it
                self._remove(storage, server, held)
        return store

    def _check(self, server: Server, swept: Store, found: Plan) -> None:
        """See what is gone. Pushes may add to it meanwhile, and no client of the API can take a blob's file away."""
        report = self._report
        after = reading.read(self._storage(server), known=swept.references)
        missing = (found.live & swept.blobs.keys()) - after.blobs.keys()
        if missing:
            raise VerificationFailed(
                f"{len(missing)} blobs that are in use are gone: {', '.join(sorted(missing)[:3])}",
                hint="push them again; and tell us, as this must not happen",
            )
        gone = swept.blobs.keys() - after.blobs.keys()
        report.blobs_freed, report.bytes_freed = len(gone), sum(swept.blobs[digest].size for digest in gone)
        self._part("check")

    def _sweep(self, storage: Place, server: Server, store: Store, found: Plan) -> None:
        """Remove links, let the registry's own collection say what it would take, and let it."""
        self._say(f"removing {len(found.unlink)} links and {len(found.untag)} tags")
        self._remove(storage, server, _paths(store, found))
        self._stopped("unlink")
        self._say("asking the registry's own collection what it would delete")
        try:
            announced = gate.parse(self._run(server, "--dry-run").text)
            gate.check(announced, found, store, grace_s=self._order.rules.grace_s)
        except (CollectionStopped, PlaceUnreachable) as error:
            try:
                self._relink(storage, server, store, found)
            except RegistryError as failed:
                raise CollectionStopped(f"{error}; and {failed}", hint=error.hint) from error
            raise
        self._stopped("gate")
        self._keeper.still_held()
        self._say(f"sweeping {len(announced.blobs)} blobs")
        self._run(server, "")
        self._stopped("sweep")

    def _hold(self, storage: Place, server: Server, found: Plan) -> list[str]:
        """Store a manifest of what has none and is to stay; the paths to remove afterwards."""
        if not found.held:
            return []
        layers = [{"mediaType": "application/octet-stream", "digest": each, "size": 0} for each in sorted(found.held)]
        value = {"schemaVersion": 2, "mediaType": manifests.OCI_MANIFEST, "config": layers[0], "layers": layers}
        body = json.dumps(value).encode()
        digest = sha256(body).hexdigest()
        path = reading.path_of(f"sha256:{digest}")
        arguments = (server.pid, str(server.until), str(len(body)), HOLD, digest, path)
        _require(
            storage.sh(commands.HOLD, *arguments, stdin=body), "what is to stay and has no manifest cannot be held"
        )
        return [f"repositories/{HOLD}", path.removesuffix("/data")]

    def _remove(self, storage: Place, server: Server, paths: Iterable[str]) -> None:
        names = "".join(f"{path}\n" for path in paths).encode()
        if names:
            arguments = (server.pid, str(server.until), str(len(names)))
            _require(storage.sh(commands.REMOVE, *arguments, stdin=names), "links cannot be removed")

    def _relink(self, storage: Place, server: Server, store: Store, found: Plan) -> None:
        """Write the links again that were taken away."""
        links = [(_revision(name, digest), digest) for name, digest in found.unlink]
        for name, tag in found.untag:
            current = store.repositories[name].tags[tag].current
            if current:
                folder = f"repositories/{name}/_manifests/tags/{tag}"
                links += [(f"{folder}/current", current.digest)]
                links += [(f"{folder}/index/{current.digest.replace(':', '/')}", current.digest)]
        lines = "".join(f"{digest} {folder}\n" for folder, digest in links).encode()
        if lines:
            arguments = (server.pid, str(server.until), str(len(lines)))
            _require(storage.sh(commands.LINK, *arguments, stdin=lines), "links cannot be written back")

    def _run(self, server: Server, option: str) -> Done:
        done = self._keeper.place.sh(
            commands.COLLECT, server.pid, str(server.until), option, timeout_s=self._order.stop_limit_s
        )
        return _require(done, "the registry's garbage-collect failed")

    def _prove(self, store: Store, *, read_only: bool) -> None:
        """Make sure, over the network, that writes are refused with 405, or are taken."""
        repository = Reference(host=self._order.host, repository=next(iter(store.repositories), HOLD))
        deadline, proofs = time.monotonic() + _PROVE_S, 0
        while proofs < _PROOFS:
            said = "takes writes" if read_only else "refuses writes"
            try:
                self._ask(lambda: maintenance.check_writable(repository))
                refused = False
            except ReadOnly:
                refused = True
            except (
                RegistryFailed,
                RegistryUnreachable,
            ) as error:  # a connection to the pod that ends, or one not begun
                refused, said = not read_only, f"does not answer as it should ({error})"
            proofs = proofs + 1 if refused == read_only else 0
            if not proofs:
                if time.monotonic() > deadline:
                    raise CollectionStopped(
                        f"{self._order.host}: it still {said} after its roll",
                        hint="does this name lead to the registry that is collected, and to no other?",
                    )
                time.sleep(_PAUSE_S)

    def _restore(self, server: Server) -> Server:
        """End what may still collect, then roll to the usual mode; try for a while, as what is lost may come back."""
        deadline = time.monotonic() + _RESTORE_S
        while True:
            try:
                self._keeper.place.sh(commands.STRAY, server.config_file, timeout_s=60)
                return self._keeper.roll({})
            except (PlaceUnreachable, CollectionStopped):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _verify(self, server: Server, swept: Store, found: Plan) -> None:
        """Read every tag over the network: it is there and names what it named, or what somebody has pushed since.

        A tag that cannot be read counts while the storage has it: since writes are taken again, clients remove tags.
        """
        self._say(f"verifying {len(found.kept_tags)} tags")
        verified, store, failed = 0, swept, list(found.kept_tags)
        wrong: Mapping[Reference, str] = {}
        for number in range(_READINGS):
            if number:
                time.sleep(_PAUSE_S)  # a removal takes the manifest away first, then the tag
                store = reading.read(self._storage(server), known=swept.references)
            wanted = self._named(store, failed)
            wrong = self._ask(partial(_read_tags, wanted))
            verified += len(wanted) - len(wrong)
            failed = [(each.repository, each.tag) for each in wrong]
            if not failed:
                break
        else:
            raise VerificationFailed(
                f"{len(wrong)} tags cannot be read after the collection: {'; '.join(list(wrong.values())[:3])}",
                hint=f"slipway restore {next(iter(wrong)).name}:TAG",
            )
        self._report.tags_verified = verified
        self._part("verify")

    def _named(self, store: Store, tags: Iterable[tuple[str, str]]) -> dict[Reference, str]:
        """Return those of some tags that a storage has, with the digests that they name."""
        named = {}
        for name, tag in tags:
            repository = store.repositories.get(name)
            current = repository.tags[tag].current if repository and tag in repository.tags else None
            if current:
                named[Reference(host=self._order.host, repository=name, tag=tag)] = current.digest
        return named

    def _storage(self, server: Server) -> Place:
        return Within(place=self._keeper.place, folder=server.folder)

    def _part(self, name: str) -> None:
        now = time.monotonic()
        if name:
            self._report.parts[name] = self._report.parts.get(name, 0.0) + now - self._began
        self._began = now

    def _stopped(self, name: str) -> None:
        now = time.monotonic()
        self._report.stopped[name] = self._report.stopped.get(name, 0.0) + now - self._began
        self._began = now


def _require(done: Done, what: str) -> Done:
    if done.code:
        raise CollectionStopped(f"{what} ({done.said})", hint="run it again: nothing that is in use was touched")
    return done


def _revision(name: str, digest: str) -> str:
    return f"repositories/{name}/_manifests/revisions/{digest.replace(':', '/')}"


def _paths(store: Store, found: Plan) -> list[str]:
    """Return what is to be removed: tags, then manifests' links, indexes before what they list, then the tags' history."""
    gone = set(found.unlink)
    tags = [f"repositories/{name}/_manifests/tags/{tag}" for name, tag in found.untag]
    indexes = [each for each in found.unlink if store.references[each[1]].children]
    images = [each for each in found.unlink if not store.references[each[1]].children]
    history = [
        f"repositories/{name}/_manifests/tags/{tag}/index/{digest.replace(':', '/')}"
        for name, repository in store.repositories.items()
        for tag, each in repository.tags.items()
        for digest in each.history
        if (name, digest) in gone and (name, tag) not in found.untag
    ]
    return [*tags, *(_revision(*each) for each in (*indexes, *images)), *history]


def _due(repository: Repository) -> bool:
    """Tell whether a tag of it has no backup of what it names."""
    named = {tag: each.current.digest for tag, each in repository.tags.items() if each.current}
    return backup.due(named)


def _read_tags(wanted: Mapping[Reference, str]) -> Protocol[dict[Reference, str]]:
    """Read tags, with the digests that they name; what is wrong with those that cannot be read."""
    failed = {}
    for start in range(0, len(wanted), _BATCH):
        batch = list(wanted)[start : start + _BATCH]
        responses = yield [exchange.get_manifest(each) for each in batch]
        for each, response in zip(batch, responses, strict=True):
            if _is_schema_1(response, wanted[each]):
                continue
            try:
                exchange.require(each, exchange.read_manifest(each, response))
            except RegistryError as error:
                failed[each] = str(error)
    return failed


def _is_schema_1(response: Response, digest: str) -> bool:
    """Tell whether an answer is a manifest of schema 1 with this digest, which is not of the signatures in the body."""
    kind, told = (response.headers.get(name, "") for name in ("content-type", "docker-content-digest"))
    return response.status == 200 and kind.startswith(_SCHEMA_1) and told == digest
