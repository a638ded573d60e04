"""Turns: every verb that writes takes the lock that it is told of, and waits while the registry is read-only, with a limit."""

import fcntl
import json
import threading

import pytest

from scripts.benchmarks.registries import SERVERS

AMD64, ARM64 = "linux/amd64", "linux/arm64"
VERBS = {
    "merge": ["merge", "{name}:1", "--from", "{name}:s"],
    "backup": ["backup", "{name}"],
    "restore": ["restore", "{name}:naive"],
    "untag": ["untag", "{name}:gone"],
    "untag all": ["untag", "{name}", "--all-with-prefix", "forgotten-"],
}


@pytest.fixture
def run(here):
    """Run a verb; its exit code and what it said."""

    def run(verb, server, *flags):
        words = [each.format(name=f"{server.host}/app") for each in VERBS[verb]]
        code, _, said = here(*words, *flags)
        return code, said

    return run


def _fill(server, run):
    """Something to do for each verb: a staging tag, a tag that a naive push broke, tags to take away."""
    for tag in ("1", "naive", "gone", "forgotten-1"):
        server.push_index("app", tag, [AMD64, ARM64], text=tag)
    assert run("backup", server)[0] == 0
    server.push_image("app", AMD64, tag="naive", text="later")
    server.push_index("app", "s", [ARM64], text="new")


def _is_done(server, verb):
    return {
        "merge": lambda: server.get("app", "s") is None,
        "backup": lambda: sum(tag.startswith("slipway.backup.s.") for tag in server.tags("app")) == 1,
        "restore": lambda: set(server.images("app", "naive")) == {AMD64, ARM64},
        "untag": lambda: server.get("app", "gone") is None,
        "untag all": lambda: server.get("app", "forgotten-1") is None,
    }[verb]()


@pytest.fixture(params=SERVERS)
def server(request, new_registry, run):
    """A registry with something to do for each verb."""
    server = new_registry(request.param)
    _fill(server, run)
    return server


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_registry_is_waited_for(server, run, verb):
    """Up to the limit, which is an error that says what to do; nothing is written before."""
    server.restart(REGISTRY_STORAGE_MAINTENANCE_READONLY='{"enabled":true}')
    before = server.tags("app")

    code, said = run(verb, server, "--wait", "1s")
    untouched = server.tags("app")
    again = threading.Timer(1, server.restart)
    again.start()
    late, said_late = run(verb, server, "--wait", "30s")
    again.join()

    assert (code, untouched) == (1, before)
    assert "the registry is read-only now; waiting for it, 1s at most" in said
    assert said.splitlines()[-2].startswith("error: ")
    assert "--wait" in said.splitlines()[-1]
    assert (late, said_late.count("waiting for it, 30s at most")) == (0, 1), said_late
    assert _is_done(server, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_the_lock_is_taken_in_turn(new_registry, run, tmp_path, verb):
    """Whoever holds it is waited for, up to the limit; without --lock nobody asks for it."""
    server = new_registry("3.1")
    _fill(server, run)
    before = server.tags("app")
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, said = run(verb, server, "--lock", tmp_path / "lock", "--wait", "1s")
        untouched = server.tags("app")
        unlock = threading.Timer(1, fcntl.flock, (held, fcntl.LOCK_UN))
        unlock.start()
        late, said_late = run(verb, server, "--lock", tmp_path / "lock", "--wait", "30s")
        unlock.join()

    assert (code, untouched) == (1, before)
    assert f"{tmp_path}/lock: another process holds it; waiting for it, 1s at most" in said
    assert said.splitlines()[-2:] == [
        f"error: {tmp_path}/lock: another process holds it since 1 s",
        "hint: wait longer: --wait 30m",
    ]
    assert (late, said_late.count("waiting for it, 30s at most")) == (0, 1), said_late
    assert _is_done(server, verb)


@pytest.mark.parametrize("path", ["no/such/folder/lock", "."])
def test_a_lock_that_is_none_is_told(server, run, tmp_path, path):
    """Rather than going on without it."""
    code, said = run("merge", server, "--lock", tmp_path / path)

    assert code == 1
    assert said.startswith(f"error: {tmp_path}/{path}".removesuffix("/."))
    assert server.get("app", "s") is not None


def test_writers_that_share_a_lock_take_turns(server, slipway, tmp_path):
    """Each begins from what the one before it made: none is superseded, and none has to write twice."""
    images = [server.push_image("app", each, text=f"w{n}") for n, each in enumerate([AMD64, ARM64] * 3)]
    results = [{}] * len(images)

    def write(number):
        source = server.name("app", images[number]["digest"])
        done = slipway(
            "merge", server.name("app", "1"), "--from", source, "--lock", tmp_path / "lock", "--format", "json"
        )
        results[number] = json.loads(done.stdout)

    first = server.request("GET", "app/manifests/1", headers={"Accept": "application/vnd.oci.image.index.v1+json"})
    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(each["attempts"], each["superseded"]) for each in results] == [(1, [])] * len(images)
    followed = {each["before"]: each["digest"] for each in results}
    place, turns = first.headers["docker-content-digest"], 0
    while place in followed:
        place, turns = followed[place], turns + 1
    assert turns == len(images)
