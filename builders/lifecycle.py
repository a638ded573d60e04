"""Bring a stack up and down, finishing first what a killed run left: its lock, its unfinished operations, its orphans.

A lock is met when the engine meets it, so a run without one costs no look-up. Orphans are resources that bear the
stack's own id in the Hetzner project but are not in its state.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from builders import activity, lease, refusals, registration, turns
from builders.errors import BuilderError, StackFailed
from builders.hetzner import Hetzner
from builders.stack import Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builders.activity import Activity
    from builders.hetzner import Kept
    from builders.lease import Lease
    from builders.stack import Stack
    from builders.state import Resource, State

_UNAUTHORIZED = "(unauthorized"  # the API's code, as the provider tells it


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """What taking a stack down means: what goes, what stays and its price a month, what a killed run left.

    `registry`: the host of the one on a cluster, and whether it stays. `nodes`: what each builds; None where it cannot be asked.
    """

    going: tuple[Resource, ...]
    staying: tuple[tuple[Resource, Decimal], ...]
    orphans: tuple[Kept, ...]
    registry: tuple[str, bool] | None = None
    nodes: Mapping[str, Activity | None] = field(default_factory=dict)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers that go, by the names of their nodes."""
        return tuple(each.name for each in self.going if each.kind == "server")

    @property
    def takes_something(self) -> bool:
        """Tell whether anything is there to go."""
        return bool(self.going or self.orphans or (self.registry and not self.registry[1]))

    def busy(self, idle_s: float) -> tuple[str, ...]:
        """Name the nodes that have built something within that time, or cannot be asked."""
        return tuple(node for node, each in self.nodes.items() if each is None or each.builds or each.idle_s < idle_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """One stack between up and down; `report` is told each thing that is done beyond the engine's own."""

    stack: Stack
    environment: Mapping[str, str]
    report: Callable[[str], None]

    def up(self) -> State:
        """Make what the program declares and return the state; a refused order is repeated one rung further down."""
        state = self._bring_up(self.stack.load())
        if state.identity:
            lease.keep(state.identity)
        return state

    def use(self, work: Callable[[State], tuple[int, bool]]) -> int:
        """Have the builders up for as long as `work` takes; return its exit code, or 1 where they could not be taken down.

        Those that were up before stay up, and those that another user on this machine still needs. `work` also tells whether
        there was a signal meanwhile: then nobody's builds are waited for.
        """
        with ExitStack() as users:
            before = self.stack.load()
            # Before the first `up` there is nobody to meet.
            held = self._join(users, before) if before.identity else None
            try:
                with turns.taken(f"with-{before.identity}-up", waiting=self._waiting) if held else nullcontext():
                    before = self.stack.load() if held else before  # others of this machine may have changed it
                    state = self._bring_up(before)
            except Locked:  # what comes of that run is not ours
                raise
            except BaseException:
                if self._has_made(before):
                    if held:
                        held.claim()
                    self._leave(held, drain=False)
                raise
            held = held or self._join(users, state)
            if state.servers - before.servers:
                held.claim()
            code, interrupted = 1, True
            try:
                code, interrupted = work(state)
            finally:
                left = self._leave(held, drain=not interrupted)
            return code or int(not left)

    def _join(self, users: ExitStack, state: State) -> Lease:
        return users.enter_context(lease.taken(state.output("id"), waiting=self._waiting))

    def _waiting(self) -> None:
        self.report("waiting for another `slipway with`, which brings the builders up or takes them down")

    def _has_made(self, before: State) -> bool:
        """Tell whether a run that failed has made servers, or has not recorded all that it began."""
        try:
            after = self.stack.load()
        except (BuilderError, KeyboardInterrupt):  # as who ends a run by a signal may send it twice
            return True
        return bool(after.servers - before.servers or after.pending)

    def _leave(self, held: Lease | None, *, drain: bool) -> bool:
        """End the use; False where the builders were to go and may still be up."""
        waited = not drain or self._let_builds_end(held)
        try:
            if held and not held.claimed:
                self.report("the builders stay up: they were before, or `slipway up` was run since")
            elif held and not held.last():
                self.report("another `slipway with` still uses the builders, and takes them down")
            else:
                if not waited:  # the others ended at the same moment
                    self._let_builds_end()
                self.report("taking the builders down")
                state = self.stack.load()
                self._take_down(state, self._plan_down(state))
                self.report("the builders are down")
        except (BuilderError, OSError, KeyboardInterrupt) as error:
            self.report(f"the builders may still be up, and cost: slipway down ({str(error) or 'interrupted'})")
            return False
        return True

    def _let_builds_end(self, held: Lease | None = None) -> bool:
        """Wait for the builds under way; False where `held` tells that others still use the builders, or want them up.

        Whatever goes wrong, or ends the wait, the builders go all the same.
        """
        try:
            if held and not (held.claimed and held.alone()):
                return False
            self._drain({})
        except (BuilderError, OSError, KeyboardInterrupt) as error:
            self.report(f"not waiting for builds ({str(error) or 'interrupted'})")
        return True

    def _bring_up(self, before: State) -> State:
        if before.pending:
            self._recover()
        refused = _refused()
        cleaned = False
        while True:
            try:
                self._unlocked(self.stack.update)
            except Locked:
                raise
            except StackFailed:
                if further := _refused() - refused:  # every rung comes here once, so this ends
                    refused |= further
                    self.report(f"{_spoken(further)} cannot be had now; taking the next rung")
                elif not cleaned and self._remove_orphans(self.stack.load()):
                    cleaned = True
                else:
                    raise
            else:
                return self.stack.load()

    def plan_down(self, *, look: bool = True) -> Down:
        """Tell what `down` would do, and unless `look` is false what the nodes build; nothing is changed."""
        state = self.stack.load()
        with ThreadPoolExecutor(1) as pool:
            nodes = pool.submit(self._look, state) if look else None  # beside the API
            plan = self._plan_down(state)
            if nodes is None:
                return plan
            return replace(plan, nodes=dict(sorted({**dict.fromkeys(plan.servers), **nodes.result()}.items())))

    def _plan_down(self, state: State) -> Down:
        cloud = self._cloud() if state.identities else None
        prices = cloud.address_prices() if cloud and any(each.protect for each in state.in_cloud()) else {}
        return Down(
            going=tuple(each for each in state.in_cloud() if not each.protect),
            staying=tuple((each, _price(each, prices)) for each in state.in_cloud() if each.protect),
            orphans=state.orphans(_bearing(state, cloud)) if cloud else (),
            registry=state.registry,
        )

    def _look(self, state: State) -> Mapping[str, Activity | None]:
        return activity.look(self.stack.load(secrets=True)) if state.nodes() else {}

    def _drain(self, nodes: Mapping[str, Activity | None]) -> None:
        """Wait for the builds under way, whoever's they are, for as long as a restart of BuildKit would."""
        activity.drain(partial(activity.look, self.stack.load(secrets=True)), nodes, report=self.report)

    def down(self, plan: Down, *, drain: bool = True, idle_s: float | None = None) -> None:
        """Remove what is not protected, also what is planned as an orphan, and make sure that nothing else is left.

        Builds under way come to their end before, unless `drain` is false. With `idle_s` they stop it, as do those that have
        ended within that time.
        """
        before = self.stack.load()
        self._check_unused(before)
        if idle_s is not None:
            if busy := replace(plan, nodes=self._look(before)).busy(idle_s):
                raise StackFailed(f"not idle any more, so nothing was removed: {', '.join(busy)}")
        elif drain and before.nodes():
            self._drain(plan.nodes)
            before = self.stack.load()
            self._check_unused(before)
        self._take_down(before, plan)

    def _check_unused(self, state: State) -> None:
        if state.identity and lease.in_use(state.identity):
            raise StackFailed(
                "a `slipway with` on this machine uses the builders",
                hint="where it brought them up, it takes them down when its command has ended",
            )

    def _take_down(self, before: State, plan: Down) -> None:
        if before.pending:
            self._recover()
        if before.resources:
            self._unlocked(self.stack.destroy)
        self._unregister(before)
        if before.identities:
            self._sweep(before, plan.orphans)

    def _unregister(self, before: State) -> None:
        """Undo the registrations of this machine that a killed run never recorded; the recorded ones went with the stack."""
        for builder in before.registered():
            if left := registration.leave(builder, before.authority):
                self.report(left)

    def _sweep(self, before: State, orphans: tuple[Kept, ...]) -> None:
        cloud = self._cloud()
        kept = {(each.kind, each.id) for each in self.stack.load().in_cloud()}
        left = [each for each in _bearing(before, cloud) if (each.kind, str(each.id)) not in kept]
        for orphan in (each for each in orphans if each in left):
            self._remove(cloud, orphan)
        if strays := [each for each in left if each not in orphans]:
            raise StackFailed(
                f"still in the Hetzner project, though not in the state: {', '.join(map(_named, strays))}",
                hint="run `slipway down` again",
            )

    def _unlocked(self, operation: Callable[[], None]) -> None:
        """Run an operation of the engine; where a dead run's lock is in its way, finish that run first."""
        try:
            self._authorized(operation)
        except Locked as lock:
            self._clear(lock)
            self._recover()
            self._authorized(operation)

    def _authorized(self, operation: Callable[[], None]) -> None:
        """Run an operation of the engine; where the token on record was revoked, put the one that is set on record first.

        The engine looks at what exists, as it does at the beginning of every run, with the token of the run before.
        """
        try:
            operation()
        except StackFailed as error:
            if _UNAUTHORIZED not in str(error):
                raise
            self._cloud().existing({"slipway-id": "none"})  # TokenRejected, if it is the one that is set
            self.report("the token on record is refused; recording the one that is set")
            self.stack.refresh(run_program=True)
            operation()

    def _clear(self, lock: Locked) -> None:
        if not lock.dead:
            raise lock
        self.report(f"clearing the lock of a dead run: {', '.join(map(str, lock.locks))}")
        self.stack.release()

    def _recover(self) -> None:
        """Drop what a killed run began and never ended, and remove what it made and never recorded."""
        state = self.stack.load()
        if state.pending:
            self.report(f"dropping {len(state.pending)} unfinished operation(s) of a killed run")
            # The engine does it under its lock: a state that was read here and written back could undo somebody's work.
            try:
                self._authorized(self.stack.refresh)
            except Locked as lock:
                self._clear(lock)
                self._authorized(self.stack.refresh)
            state = self.stack.load()
        self._remove_orphans(state)

    def _remove_orphans(self, state: State) -> bool:
        """Remove what a killed run left, unless another run is at work: what that makes was pending in the state before."""
        if not state.identities:
            return False
        cloud = self._cloud()
        bearing = _bearing(state, cloud)
        if not state.orphans(bearing):
            return False
        state = self.stack.load()
        orphans = () if state.pending else state.orphans(bearing)
        for orphan in orphans:
            self._remove(cloud, orphan)
        return bool(orphans)

    def _remove(self, cloud: Hetzner, orphan: Kept) -> None:
        self.report(f"removing {_named(orphan)}, which a killed run left")
        cloud.remove(orphan)

    def _cloud(self) -> Hetzner:
        return Hetzner(*self.stack.token_and_endpoint(self.environment))


def _bearing(state: State, cloud: Hetzner) -> tuple[Kept, ...]:
    """Return all of the Hetzner project that bears one of the stack's ids."""
    return tuple(each for identity in sorted(state.identities) for each in cloud.existing({"slipway-id": identity}))


def _refused() -> frozenset[tuple[str, str]]:
    return frozenset((each.server_type, each.location) for each in refusals.load(datetime.now(UTC)))


def _spoken(rungs: frozenset[tuple[str, str]]) -> str:
    return ", ".join(f"{server_type} in {location}" for server_type, location in sorted(rungs))


def _named(kept: Kept) -> str:
    return f"{kept.kind.replace('_', ' ')} {kept.name}"


def _price(resource: Resource, prices: Mapping[tuple[str, str], Decimal]) -> Decimal:
    return prices.get((resource.outputs.get("type", ""), resource.outputs.get("location", "")), Decimal(0))
