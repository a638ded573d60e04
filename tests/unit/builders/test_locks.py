"""Locks as the self-managed backends tell of them."""

import os
import socket

from builders.locks import Lock, is_dead, parse_locks

REFUSAL = """\
error: could not import deployment: the stack is currently locked by 2 lock(s). Either wait for the other process(es) to end or delete the lock file with `pulumi cancel`.
  file:///state/.pulumi/locks/organization/slipway/dev/3bf492b3.json?no_tmp_dir=true: created by root@vm (pid 5666) at 2026-11-23T23:20:48Z
  file:///state/.pulumi/locks/organization/slipway/dev/11111111.json?no_tmp_dir=true: created by DOMAIN\\ann lee@laptop.example (pid 7) at 2026-11-23T23:21:00+01:00
"""


def test_reads_every_holder():
    """User, host, process and time, whatever the user is called."""
    assert parse_locks(REFUSAL) == (
        Lock(user="root", host="vm", pid=5666, since="2026-11-23T23:20:48Z"),
        Lock(user="DOMAIN\\ann lee", host="laptop.example", pid=7, since="2026-11-23T23:21:00+01:00"),
    )


def test_other_failures_are_no_locks():
    """Only the engine's own refusal counts, not text that looks like it."""
    assert parse_locks("error: a file was created by root@vm (pid 1) at 2026-11-23T23:20:48Z") == ()


def test_a_lock_reads_as_its_holder():
    """The message names whom to ask."""
    lock = Lock(user="ann", host="laptop", pid=7, since="2026-11-23T23:21:00Z")

    assert str(lock) == "ann@laptop (process 7, since 2026-11-23T23:21:00Z)"


def test_a_user_without_a_name_can_tell_nothing_of_a_lock(monkeypatch):
    """As a job in a container whose number nobody gave a name."""
    monkeypatch.setattr(os, "getuid", lambda: 54321)

    assert not is_dead(Lock(user="ann", host=socket.gethostname(), pid=99999999, since="2026-11-23T23:21:00Z"))
