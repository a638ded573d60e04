"""How the language host starts a program."""

from pathlib import Path

import pytest

from scripts.toolchain.plugins.language_python.program import (
    Program,
    UnusableRuntime,
    build_command,
    build_environment,
    explain_exit,
    find_interpreter,
    find_virtualenv,
)

PROGRAM = Program(
    executor=Path("/plugins/exec"),
    monitor="127.0.0.1:1",
    engine="127.0.0.1:2",
    project="slipway",
    stack="dev",
    organization="organization",
    root=Path("/project"),
    directory="/project/infra",
    entry_point=".",
    dry_run=True,
    parallel=8,
    config={"slipway:image": "debian-12"},
    secret_keys=("hcloud:token",),
)


def test_every_option_of_the_run_reaches_the_program():
    """The program is told where the engine listens, what it deploys, whether it is a dry run and how parallel it may be."""
    command = build_command(Path("/project/.venv/bin/python"), PROGRAM)

    assert command == [
        "/project/.venv/bin/python", "-u", "/plugins/exec",
        "--monitor", "127.0.0.1:1", "--engine", "127.0.0.1:2", "--project", "slipway", "--root_directory", "/project",
        "--stack", "dev", "--pwd", "/project/infra", "--dry_run", "true", "--parallel", "8",
        "--organization", "organization", ".",
    ]  # fmt: skip


def test_configuration_travels_in_the_environment():
    """Configuration and the names of secret keys are JSON in the environment, never arguments."""
    environment = build_environment({"PATH": "/bin"}, PROGRAM, None, {})

    assert environment["PULUMI_CONFIG"] == '{"slipway:image": "debian-12"}'
    assert environment["PULUMI_CONFIG_SECRET_KEYS"] == '["hcloud:token"]'


def test_the_virtual_environment_is_active_in_the_program():
    """A tool that the program starts by name is the virtual environment's own."""
    base = {"PATH": "/bin", "PYTHONHOME": "/elsewhere"}

    environment = build_environment(base, PROGRAM, Path("/project/.venv"), {"toolchain": "uv"})

    assert environment["PATH"] == "/project/.venv/bin:/bin"
    assert environment["VIRTUAL_ENV"] == "/project/.venv"
    assert environment["PULUMI_RUNTIME_TOOLCHAIN"] == "uv"
    assert "PYTHONHOME" not in environment


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"toolchain": "uv"}, Path("/project/.venv")),
        ({"toolchain": "uv", "virtualenv": "env"}, Path("/project/env")),
        ({"virtualenv": "/opt/env"}, Path("/opt/env")),
        ({}, None),
    ],
)
def test_the_virtual_environment_is_relative_to_the_project(options, expected):
    """A relative virtualenv is looked up beside Pulumi.yaml, wherever `main` points; uv has a default."""
    assert find_virtualenv(Path("/project"), options) == expected


def test_a_missing_virtual_environment_says_how_to_make_it(tmp_path):
    """A project that was never set up fails with the command that sets it up."""
    with pytest.raises(UnusableRuntime) as caught:
        find_interpreter(tmp_path, {"virtualenv": ".venv"}, fallback=Path("/usr/bin/python3"))

    assert str(caught.value) == (
        f"runtime option virtualenv: {tmp_path}/.venv is not a virtual environment; run scripts/setup python"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, ("", False)),
        (32, ("", True)),
        (3, ("program exited with non-zero exit code: 3", False)),
        (-9, ("program ended by SIGKILL", False)),
    ],
)
def test_an_exit_is_explained_once(code, expected):
    """Exit 32 means that the user has been told; every other failure is explained to the engine."""
    assert explain_exit(code) == expected
