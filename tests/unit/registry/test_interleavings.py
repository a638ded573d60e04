"""Every order in which the steps of merges, two or three, or one and a restore, can meet, with a crash at any step.

The steps are the protocol's own code.
A registry in memory answers as registry 2.8 does, one request at a time. The search takes each writer's requests apart,
lets them arrive in every order, those of one batch too, and looks at every end that there is.
"""

import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from scripts.registry import backup, manifests, merge, platforms, records, references
from scripts.registry.errors import Contended, SourceRefused, VerificationFailed
from scripts.registry.exchange import Pause, Response

TARGET = references.parse("registry.test/app:1")
AMD64, ARM64, S390X = (platforms.parse(f"linux/{name}") for name in ("amd64", "arm64", "s390x"))
START = 1_700_000_000
BACKUP = TARGET.tagged("slipway.backup.1.of-before")


def _image(platform, text):
    """A manifest and its configuration, as a registry holds them."""
    config = json.dumps({"os": platform.os, "architecture": platform.architecture, "text": text}).encode()
    kind = "application/vnd.oci.image.config.v1+json"
    part = {"mediaType": kind, "digest": manifests.digest_of(config), "size": len(config)}
    body = json.dumps({"schemaVersion": 2, "mediaType": manifests.OCI_MANIFEST, "config": part, "layers": []}).encode()
    return manifests.parse(body, manifests.OCI_MANIFEST, name=text), config


class Contents:
    """What digests name: it only grows, so all states of a search share it."""

    def __init__(self):
        self.manifests, self.blobs = {}, {}

    def add(self, manifest):
        self.manifests[manifest.digest] = (manifest.body, manifest.media_type)
        return manifest.digest

    def image(self, platform, text):
        image, config = _image(platform, text)
        self.blobs[image.config.digest] = config
        self.add(image)
        return image

    def index(self, images):
        parts = [
            manifests.Contribution(
                platform=p, image=manifests.describe(i, {"os": p.os, "architecture": p.architecture})
            )
            for p, i in images.items()
        ]
        index, _ = manifests.merge(manifests.empty_index(), parts)
        self.add(index)
        return index


def answer(contents, tags, clock, request):
    """Answer one request as registry 2.8 does; the response, and the tags afterwards."""
    kind, name = request.path.removeprefix("/v2/app/").split("/", 1)
    date = {"date": datetime.fromtimestamp(START + clock, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}
    if kind == "blobs":
        return Response(status=200, headers=date, body=contents.blobs[name]), tags
    if request.method == "PUT":
        digest = manifests.digest_of(request.body)
        contents.manifests[digest] = (request.body, request.headers["Content-Type"])
        headers = {**date, "docker-content-digest": digest}
        return Response(status=201, headers=headers), tags if name == digest else {**tags, name: digest}
    digest = name if name.startswith("sha256:") else tags.get(name)
    if digest not in contents.manifests:
        body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode()
        return Response(status=404, headers=date, body=body), tags
    headers = {**date, "docker-content-digest": digest}
    if request.headers.get("If-None-Match") == f'"{digest}"':
        return Response(status=304, headers=headers), tags
    body, media_type = contents.manifests[digest]
    return Response(status=200, headers={**headers, "content-type": media_type}, body=body), tags


@dataclass(frozen=True)
class Writer:
    """A merge: which image for which platform; `source` is the index that it comes from, where it is in one."""

    platform: platforms.Platform
    digest: str
    source: str = ""

    def begin(self, number):
        """Return its protocol."""
        order = merge.Order(
            target=TARGET, sources=(TARGET.at(self.source or self.digest),), now=datetime.fromtimestamp(START, UTC),
            token=str(number), create=True,
        )  # fmt: skip
        return merge.merge(order)


@dataclass(frozen=True)
class Restorer:
    """A restore of a backup to the byte."""

    digest: str

    def begin(self, _number):
        """Return its protocol."""
        taken = datetime.fromtimestamp(START - 60, UTC)
        chosen = backup.Backup(reference=BACKUP, key="1", taken=taken, digest=self.digest[7:19])
        return backup._restore_exactly(TARGET, chosen, now=datetime.fromtimestamp(START, UTC))


@dataclass(frozen=True)
class Ended:
    """How a writer came to its end."""

    superseded: bool = False
    contended: bool = False
    refused: bool = False


class State(NamedTuple):
    """Everything that can differ: tags, clock, and for each writer what it was told and what is under way."""

    tags: int  # their number: states are compared a million times
    clock: int
    told: tuple  # per writer: number of its history
    answers: tuple  # per writer: answers to its present batch, None where there is none yet
    crashed: frozenset = frozenset()
    pushed: bool = False
    unseen_push: frozenset = frozenset()  # writers that have been answered nothing since the push


class Search:
    """A depth-first search over all orders; `violation` is the first end that must not be."""

    def __init__(
        self, wanted, *, present=(AMD64, ARM64), crashes=0, ticks=True, push=False, whole=False, limit=2_000_000,
        restored=(),
        refused=None,
    ):  # fmt: skip
        self.contents = Contents()
        self.base = self.contents.index({p: self.contents.image(p, f"old {p}") for p in present})
        self.writers = [Writer(p, self.contents.image(p, f"writer {n} {p}").digest) for n, p in enumerate(wanted)]
        every = {p: self.contents.image(p, f"pushed {p}") for p in (*present, S390X)}
        self.foreign = self.contents.index(every) if push else None
        self.tags = {"1": self.base.digest} if present else {}
        self.restored = self.contents.index({p: self.contents.image(p, f"restored {p}") for p in restored})
        if restored:
            self.tags[BACKUP.tag] = self.restored.digest
            self.writers.append(Restorer(self.restored.digest))
        self.refused = refused
        if refused:
            image = self.contents.image(S390X, "of another architecture than its index says")
            self.writers.append(Writer(refused, image.digest, source=self.contents.index({refused: image}).digest))
        self.crashes, self.ticks, self.whole, self.limit = crashes, ticks, whole, limit
        self.strict = len(wanted) < 3
        self.histories, self.steps, self.under_way = {}, [], {}
        self.tag_sets, self.tag_numbers = [], {}
        self.numbers, self.responses, self.answered, self.served = {}, [], {}, {}
        self.explored, self.ends, self.violation = 0, 0, ""

    def _advance(self, writer, past, before=None):
        """What a writer does after it was told `past`: a batch of requests, or its end; each history is run once.

        The first to go on from history `before` goes on with its protocol; the others begin anew.
        """
        key = (writer, past)
        if key in self.histories:
            return self.histories[key]
        protocol, untold = self.under_way.pop(before, None), past[-1:]
        try:
            if protocol is None:
                protocol, untold = self.writers[writer].begin(writer), past
                step = next(protocol)
            for responses in untold:
                step = protocol.send([self.responses[n] for n in responses])
                while isinstance(step, Pause):
                    step = protocol.send(())
            outcome = tuple(step)
        except StopIteration as end:
            outcome = Ended(superseded=bool(end.value.superseded))
        except (Contended, VerificationFailed):
            outcome = Ended(contended=True)
        except SourceRefused:
            outcome = Ended(refused=True)
        if isinstance(outcome, Ended):  # how it came to its end does not matter any more
            past = ()
            self.histories[key] = self.histories.get((writer, outcome), len(self.steps))
            self.histories[writer, outcome] = self.histories[key]
        else:
            self.histories[key] = len(self.steps)
            self.under_way[len(self.steps)] = protocol
        if self.histories[key] == len(self.steps):
            visible = () if isinstance(outcome, Ended) else tuple(map(self._visible, outcome))
            self.steps.append((past, outcome, visible))
        return self.histories[key]

    def _numbered(self, tags):
        """Return the number of these tags; `tag_sets` has them at it."""
        key = frozenset(tags.items())
        if key not in self.tag_numbers:
            self.tag_numbers[key] = len(self.tag_sets)
            self.tag_sets.append(tags)
        return self.tag_numbers[key]

    def _settled(self, writer, number, answers, tags):
        """A writer's history and answers from these on: what no other can change or see is answered, and a whole batch goes on."""
        past, step, visible = self.steps[number]
        while True:
            for n, request in enumerate(step):
                if answers[n] is None and not visible[n]:
                    answers[n] = self._answer(tags, 0, request)
            if None in answers:
                break
            number = self._advance(writer, (*past, tuple(answers)), number)
            past, step, visible = self.steps[number]
            if isinstance(step, Ended):
                answers = ()
                break
            answers = [None] * len(step)
        return number, tuple(answers)

    def _answer(self, tags, clock, request):
        """Answer a request, and let the tags change; responses are told by number, which states are compared by.

        Two requests that ask the same of the same are answered once.
        """
        name = request.path.rsplit("/", 1)[1]
        key = (request.method, request.path, request.headers.get("If-None-Match"), request.body, tags.get(name), clock)
        if key not in self.answered:
            response, after = answer(self.contents, tags, clock, request)
            told = (response.status, tuple(response.headers.items()), response.body)
            if told not in self.numbers:
                self.numbers[told] = len(self.responses)
                self.responses.append(response)
            self.answered[key] = self.numbers[told], after.get(name)
        number, named = self.answered[key]
        if named:
            tags[name] = named
        return number

    @staticmethod
    def _visible(request):
        name = request.path.rsplit("/", 1)[1]
        return name == TARGET.tag or name.startswith("slipway.record.")

    def run(self):
        """Search; the first violation in words, "" where there is none."""
        tags = dict(self.tags)
        first = [self._advance(n, ()) for n in range(len(self.writers))]
        settled = [self._settled(n, told, [None] * len(self.steps[told][1]), tags) for n, told in enumerate(first)]
        told, answers = zip(*settled, strict=True)
        state = State(tags=self._numbered(tags), clock=0, told=told, answers=answers)
        seen, waiting = {state: None}, [state]
        while waiting and not self.violation:
            state = waiting.pop()
            self.explored += 1
            assert self.explored < self.limit, "the search does not end"
            moves = list(self._moves(state))
            if not any(live for live, _ in moves):
                self.ends += 1
                self.violation = self.violation or self._judge(state)
            for _, following in moves:
                if following not in seen:
                    seen[following] = state
                    waiting.append(following)
        self.path = [state]
        while seen[self.path[-1]]:
            self.path.append(seen[self.path[-1]])
        return self.violation

    def _moves(self, state):
        for writer in range(len(self.writers)):
            step = self.steps[state.told[writer]][1]
            if isinstance(step, Ended) or writer in state.crashed:
                continue
            if len(state.crashed) < self.crashes:
                yield False, self._crash(state, writer)
            open_ones = tuple(n for n, answer in enumerate(state.answers[writer]) if answer is None)
            for numbers in [open_ones] if self.whole else [(n,) for n in open_ones]:
                yield True, self._serve(state, writer, numbers)
        if self.foreign and not state.pushed:
            tags = {**self.tag_sets[state.tags], "1": self.foreign.digest}
            yield True, state._replace(
                tags=self._numbered(tags), pushed=True, clock=state.clock + self.ticks,
                unseen_push=frozenset(range(len(self.writers))),
            )  # fmt: skip

    @staticmethod
    def _crash(state, writer):
        told = (*state.told[:writer], 0, *state.told[writer + 1 :])  # what it knew is gone
        answers = (*state.answers[:writer], (), *state.answers[writer + 1 :])
        return state._replace(told=told, answers=answers, crashed=state.crashed | {writer})

    def _serve(self, state, writer, numbers):
        """Answer some of a writer's requests, one after the other; what comes of it is found out once."""
        key = (
            writer, numbers, state.told[writer], state.answers[writer], state.tags, state.clock, writer in state.unseen_push,
        )  # fmt: skip
        if key not in self.served:
            self.served[key] = self._served(*key)
        number, answers, tags, clock = self.served[key]
        return State(
            tags=tags,
            clock=clock,
            told=(*state.told[:writer], number, *state.told[writer + 1 :]),
            answers=(*state.answers[:writer], answers, *state.answers[writer + 1 :]),
            crashed=state.crashed,
            pushed=state.pushed,
            unseen_push=state.unseen_push - {writer},
        )

    def _served(self, writer, numbers, told, answers, tags, clock, unseen):
        step = self.steps[told][1]
        answers, tags = list(answers), dict(self.tag_sets[tags])
        for n in numbers:
            request = step[n]
            of_target = request.path.endswith("/manifests/1")
            writes = request.method == "PUT" and of_target
            if writes and self.foreign and tags["1"] == self.foreign.digest and not unseen:
                index = manifests.parse(request.body, manifests.OCI_INDEX, name="written")
                if index.images().get(S390X) != self.foreign.images()[S390X]:
                    self.violation = "a push that was there before the last look was overwritten"
            answers[n] = self._answer(tags, clock if of_target else 0, request)
            clock += self.ticks and writes
            unseen = False
        number, answers = self._settled(writer, told, answers, tags)
        return number, answers, self._numbered(tags), clock

    def _judge(self, state):
        """Nobody goes on: what is wrong with that."""
        if self.foreign:
            return ""
        tags = self.tag_sets[state.tags]
        target = self._index(tags["1"]) if "1" in tags else manifests.empty_index()
        if self.restored.descriptors:
            return self._judge_restored(state, tags, target)
        if self.refused:
            return self._judge_refused(state, tags, target)
        return self._judge_merges(state, tags, target)

    def _judge_merges(self, state, tags, target):
        """What was acknowledged is in the tag, or is seen to be lost."""
        found = {platform: each.digest for platform, each in target.images().items()}
        if self.base.images().keys() - found.keys():
            return f"a platform vanished: {found}"
        known = {}
        for platform in {each.platform for each in self.writers}:
            name = records.record_tag(TARGET, platform).tag
            record = records.parse(self._index(tags[name])) if name in tags else None
            if record:
                known[platform] = record
        ended = [self.steps[state.told[n]][1] for n in range(len(self.writers)) if n not in state.crashed]
        failed = state.crashed or any(end.contended for end in ended)
        lost = {record.platform for record in records.lost(target, target.digest, known)}
        for platform in {each.platform for each in self.writers}:
            ours = [n for n, each in enumerate(self.writers) if each.platform == platform]
            ends = {n: self.steps[state.told[n]][1] for n in ours if n not in state.crashed}
            done = [self.writers[n].digest for n, end in ends.items() if not end.superseded and not end.contended]
            gave_up = state.crashed | {n for n, end in ends.items() if end.contended}
            allowed = set(done) | {self.writers[n].digest for n in ours if n in gave_up}
            if platform in known and known[platform].image in done:
                allowed = {known[platform].image} | (allowed - set(done))
            if ends and not done and not failed:
                return f"{platform}: all say that they were superseded, and by whom?"
            if done and found.get(platform) not in allowed and (platform not in lost or (self.strict and not failed)):
                return f"{platform}: acknowledged, not in the tag, and nobody repairs it"
        return ""

    def _judge_restored(self, state, tags, target):
        """A merge and a restore: each is in the tag or undone by the other, and what was merged has its record."""
        merge_done, restore_done = (
            n not in state.crashed and self.steps[state.told[n]][1] == Ended() for n in range(len(self.writers))
        )
        platform, digest = self.writers[0].platform, self.writers[0].digest
        found, wanted = ({p: each.digest for p, each in of.images().items()} for of in (target, self.restored))
        places = {p: records.record_tag(TARGET, p).tag for p in (AMD64, ARM64)}
        parsed = {p: records.parse(self._index(tags[tag])) for p, tag in places.items() if tag in tags}
        known = {p: record for p, record in parsed.items() if record}
        lost = {record.platform for record in records.lost(target, target.digest, known)}
        if merge_done and found.get(platform) not in {digest, wanted.get(platform)}:
            return f"{platform}: neither what was merged nor what was restored"
        if merge_done and found.get(platform) == digest and platform not in known and not state.crashed:
            return f"{platform}: merged, and those who come later find no record"
        gone = {p for p in wanted if found.get(p) != wanted[p]} - lost
        if restore_done and gone and (gone, found.get(platform)) != ({platform}, digest):
            return f"{gone}: restored, not in the tag, and nobody sees it"
        if restore_done and lost and not state.crashed:
            return f"restored, and taken for lost: {lost}"
        return ""

    def _judge_refused(self, state, tags, target):
        """A merge, and one that was refused: that is nowhere, and the other knows nothing of it."""
        ended = [self.steps[each][1] for each in state.told]
        good, bad = self.writers
        found = {platform: each.digest for platform, each in target.images().items()}
        name = records.record_tag(TARGET, bad.platform).tag
        record = records.parse(self._index(tags[name])) if name in tags else None
        if bad.digest in found.values():
            return f"{bad.platform}: it was refused, and is in the tag"
        if 0 not in state.crashed and (ended[0] != Ended() or found.get(good.platform) != good.digest):
            return f"{good.platform}: it gave way to what was refused"
        if 1 not in state.crashed and (ended[1] != Ended(refused=True) or (record and record.image == bad.digest)):
            return f"{bad.platform}: it was refused, and its record is there"
        return ""

    def _index(self, digest):
        body, media_type = self.contents.manifests[digest]
        return manifests.parse(body, media_type, name=digest)


TWO = [
    pytest.param((AMD64, ARM64), {"crashes": 1}, id="two platforms"),
    pytest.param((AMD64, ARM64), {"crashes": 1, "ticks": False}, id="two platforms within a second"),
    pytest.param((AMD64, AMD64), {"crashes": 1}, id="one platform"),
    pytest.param((AMD64, ARM64), {"crashes": 1, "present": (AMD64,)}, id="a new platform"),
    pytest.param((AMD64, ARM64), {"crashes": 1, "present": ()}, id="a new tag"),
    pytest.param((AMD64,), {"push": True}, id="one merge and another tool's push"),
]


@pytest.mark.parametrize(("wanted", "options"), TWO)
def test_two_writers_lose_nothing(wanted, options, capsys):
    """In no order is an acknowledged platform lost, while its writers live; nor unseen, whoever dies."""
    search = Search(wanted, **options)

    violation = search.run()

    with capsys.disabled():
        sys.stdout.write(f" {search.explored} states, {search.ends} ends ")
    assert not violation


RESTORES = [
    pytest.param((ARM64,), {"restored": (AMD64,)}, id="a platform that the backup lacks"),
    pytest.param((ARM64,), {"restored": (AMD64,), "present": (AMD64,)}, id="a new platform that the backup lacks"),
    pytest.param((ARM64,), {"restored": (AMD64,), "ticks": False}, id="the same within a second"),
    pytest.param((AMD64,), {"restored": (AMD64,)}, id="the platform of the backup"),
    pytest.param((AMD64,), {"restored": (AMD64, ARM64)}, id="one of the backup's platforms"),
]


@pytest.mark.parametrize("crashes", [0, 1])
@pytest.mark.parametrize(("wanted", "options"), RESTORES)
def test_a_merge_beside_a_restore_is_in_the_tag_or_undone(wanted, options, crashes):
    """In every order: what was acknowledged of both is there, with its record, and nothing is taken for lost."""
    assert not Search(wanted, crashes=crashes, **options).run()


REFUSALS = [
    pytest.param(wanted, options, id=f"{name}, {of}")
    for wanted, of in (((ARM64,), "another platform"), ((AMD64,), "the same platform"))
    for options, name in (({}, "refused"), ({"crashes": 1}, "a crash"), ({"present": ()}, "a new tag"))
]


@pytest.mark.parametrize(("wanted", "options"), REFUSALS)
def test_what_was_refused_is_carried_out_by_nobody(wanted, options):
    """A merge beside one that is refused is as if it were alone, in every order."""
    assert not Search(wanted, refused=AMD64, **options).run()


def _mutants():
    unsettled = merge._unsettled

    def settled(_work, _seen):
        return False
        yield

    def unchecked(work, base, _found):
        work.checked_at = base.read_at
        return True
        yield

    def careless(work, seen):
        return (yield from unsettled(work, replace(seen, records={**work.mine, **seen.records})))

    def nothing(_work):
        return
        yield

    def believed(_target, _contribution):
        return True
        yield

    return {
        "withdrawal": ("_withdraw", nothing, {"refused": AMD64}),
        "look at others' images": ("_readable", believed, {"refused": AMD64}),
        "re-read": ("_unsettled", settled, {}),
        "look at its own record": ("_unsettled", careless, {"restored": (AMD64,)}),
        "re-check": ("_recheck", unchecked, {"push": True}),
    }


@pytest.mark.parametrize("removed", _mutants())
def test_without_one_step_the_search_finds_a_loss(removed, monkeypatch):
    """Of the re-read, the re-check, and what a merge makes of records, its own and others', each is needed."""
    name, instead, options = _mutants()[removed]
    monkeypatch.setattr(merge, name, instead)

    wanted = (AMD64,) if "push" in options else (ARM64,) if options else (AMD64, ARM64)
    assert Search(wanted, **options).run()


def test_without_the_record_the_search_finds_a_loss(monkeypatch):
    """A writer that finds no records but its own believes that it was alone."""
    unsettled = merge._unsettled
    monkeypatch.setattr(merge, "_unsettled", lambda work, seen: unsettled(work, replace(seen, records=dict(work.mine))))
    monkeypatch.setattr(merge, "_parse_records", lambda *_: {})
    monkeypatch.setattr(records, "lost", lambda *_: [])

    assert Search((AMD64, ARM64), crashes=1).run()


class Alone:
    """A registry in memory with one merge, which can be made to answer otherwise once the tag was written."""

    def __init__(self, present, fails):
        self.contents = Contents()
        self.old = {p: self.contents.image(p, f"old {p}") for p in present}
        self.base = self.contents.index(self.old)
        self.new = self.contents.image(ARM64, "new").digest
        self.tags = {"1": self.base.digest, "staging": self.new} if present else {"staging": self.new}
        self.fails = fails
        self.asked = []

    def merge(self):
        """Merge the staging tag; what came of it."""
        order = merge.Order(
            target=TARGET, sources=(TARGET.tagged("staging"),), now=datetime.fromtimestamp(START, UTC), token="0",
            create=True,
        )  # fmt: skip
        protocol, answers = merge.merge(order), None
        while True:
            try:
                batch = protocol.send(answers)
            except StopIteration as end:
                return end.value
            answers = [self._answer(request) for request in batch]

    def _answer(self, request):
        wrote = ("PUT", "/v2/app/manifests/1") in self.asked
        self.asked.append((request.method, request.path))
        if wrote and (response := self.fails(request)):
            return response
        response, self.tags = answer(self.contents, self.tags, 0, request)
        return response


NOT_THERE = Response(status=404, body=b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')


@pytest.mark.parametrize(
    ("present", "again", "said"),
    [
        ((AMD64, ARM64), None, "what it named before is back"),
        ((AMD64, ARM64), Response(status=500), "and it could not be put back either"),
        ((), None, "there was none before"),
    ],
)
def test_a_tag_that_cannot_be_read_after_the_write_names_again_what_it_named(present, again, said):
    """A registry whose cache outlived a collection takes an index and does not have it. The staging tag stays."""

    def fails(request):
        if request.path.endswith("/manifests/1"):
            return NOT_THERE if request.method == "GET" else again
        return None

    alone = Alone(present, fails)

    with pytest.raises(VerificationFailed) as caught:
        alone.merge()

    assert str(caught.value) == f"{TARGET}: the registry took the index and does not have it; {said}"
    assert (alone.tags["1"] == alone.base.digest) is said.endswith("is back")
    assert not [each for each in alone.asked if each[0] == "DELETE"]


def test_a_part_of_others_that_is_gone_is_told_and_the_staging_tag_stays():
    """The tag is merged all the same: it was so before."""
    alone = Alone((AMD64, ARM64), lambda request: NOT_THERE if request.path.endswith(lost) else None)
    lost = alone.old[AMD64].digest

    done = alone.merge()

    assert done.broken == (lost,)
    assert done.staging == ()
    assert done.after.images()[ARM64].digest == alone.new
    assert not [each for each in alone.asked if each[0] == "DELETE"]
