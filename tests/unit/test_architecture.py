"""The house rules: who may import whom, and that each outside library has one door."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A package's row names the packages of ours that it may import. Nobody imports infra or tests.
LAYERS = {
    "infra": {"infra", "builders"},
    "builders": {"builders", "scripts.registry"},
    "scripts.registry": {"scripts.registry"},
    "scripts.localcloud": {"scripts.localcloud"},  # a double that shares code with what it tests proves nothing
    "scripts.toolchain": {"scripts.toolchain"},
    "scripts.benchmarks": {"scripts.benchmarks"},
}

# An outside library and the modules that may import it: its door. Values imported for types alone do not count.
DOORS = {
    "paramiko": {"builders.ssh"},
    "cryptography": {"builders.certificates"},
    "grpc": {"builders.health", "scripts.toolchain.plugins"},
    "grpc_health": {"builders.health"},
    "hcloud": {"builders.hetzner", "scripts.toolchain.plugins.hcloud"},
    "kubernetes": {"scripts.toolchain.plugins.kubernetes.api"},
    "pulumi_hcloud": {"infra.components"},
    "websocket": {"scripts.registry.collection.cluster"},
    "pulumi_kubernetes": {"infra.components.registry"},
    "bcrypt": {"builders.passwords"},
    "pulumi": {"infra", "scripts.toolchain.plugins"},
}

# What the registry's verbs, which have no outside library, take from the standard one to reach out, and where.
REGISTRY_DOORS = {
    "http.client": {"scripts.registry.client", "scripts.registry.collection.cluster"},
    "socket": {"scripts.registry.client", "scripts.registry.collection.cluster"},
    "ssl": {"scripts.registry.client", "scripts.registry.collection.cluster"},
    "subprocess": {
        "scripts.registry.credentials", "scripts.registry.collection.cluster", "scripts.registry.collection.places",
    },
    "fcntl": {"scripts.registry.lock"},
}  # fmt: skip

# Modules of values and decisions: no socket, file, clock, process, environment or random in them.
PURE = {
    "infra.parsing", "infra.settings", "infra.registry_setting", "infra.registry_objects", "infra.plan", "infra.cloudinit",
    "builders.errors", "builders.platforms", "builders.inventory", "builders.placement", "builders.buildkit_config",
    "builders.guard", "builders.state",
    "builders.diagnostics", "builders.arguments",
    "scripts.registry.errors", "scripts.registry.platforms", "scripts.registry.references", "scripts.registry.manifests",
    "scripts.registry.exchange", "scripts.registry.records", "scripts.registry.sources", "scripts.registry.merge",
    "scripts.registry.untag", "scripts.registry.backup", "scripts.registry.inspection",
    "scripts.registry.lag", "scripts.registry.maintenance", "scripts.registry.mode",
    "scripts.registry.collection.store", "scripts.registry.collection.damage", "scripts.registry.collection.plan",
    "scripts.registry.collection.retention", "scripts.registry.collection.commands", "scripts.registry.collection.gate",
    "scripts.registry.collection.server", "scripts.registry.collection.quiet", "scripts.registry.collection.report",
}  # fmt: skip
IMPURE = {
    "asyncio", "http", "multiprocessing", "os", "pathlib", "random", "requests", "secrets", "shutil", "socket",
    "subprocess", "tempfile", "threading", "time", "urllib", "pulumi", "httpx", *DOORS,
}  # fmt: skip


def _modules():
    for package in ("infra", "builders", "scripts"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text())


MODULES = dict(_modules())


def _imports(tree, *, types=True):
    """Yield every imported module, those inside functions too; `types=False` leaves out TYPE_CHECKING blocks."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        pending += ast.iter_child_nodes(node)


def _within(name, packages):
    return any(name == each or name.startswith(f"{each}.") for each in packages)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    """infra → builders → scripts.registry; the local cloud and the toolchain share nothing with them."""
    layer = next((layer for layer in LAYERS if _within(name, [layer])), None)
    if layer is None:
        assert name == "scripts", f"{name} belongs to no layer: add it to LAYERS"
        return
    ours = {each for each in _imports(MODULES[name]) if _within(each, ["infra", "builders", "scripts", "tests"])}

    assert {each for each in ours if not _within(each, LAYERS[layer]) and each != "scripts"} == set()


@pytest.mark.parametrize("library", DOORS)
def test_each_outside_library_has_one_door(library):
    """Whoever wants to know how a library is used, or to change it, has one place to read."""
    users = {name for name, tree in MODULES.items() if _within_any(_imports(tree, types=False), library)}

    assert {name for name in users if not _within(name, DOORS[library])} == set()


@pytest.mark.parametrize("library", REGISTRY_DOORS)
def test_the_registrys_verbs_have_one_way_to_a_registry(library):
    """One HTTP door; the other one leads to Kubernetes."""
    registry = {name: tree for name, tree in MODULES.items() if _within(name, ["scripts.registry"])}

    users = {name for name, tree in registry.items() if _within_any(_imports(tree, types=False), library)}

    assert users == REGISTRY_DOORS[library]


def test_the_registrys_modules_are_in_the_order_in_which_they_are_read():
    """What the package's docstring promises a newcomer: each module imports at its head only those named before it."""
    named = re.findall(r"`(\w+)`", ast.get_docstring(MODULES["scripts.registry"]))
    order = [name for name in named if name != "collection"]
    modules = {
        name.rpartition(".")[2] for name in MODULES if name.count(".") == 2 and _within(name, ["scripts.registry"])
    }

    assert modules - set(order) == {"__main__", "collection"}
    for place, name in enumerate(order):
        head = ast.Module(
            [each for each in MODULES[f"scripts.registry.{name}"].body if not isinstance(each, ast.FunctionDef)], []
        )
        needed = {each.split(".")[2] for each in _imports(head, types=False) if each.startswith("scripts.registry.")}
        assert needed - set(order[:place]) - {name, "collection"} == set(), name


def _within_any(imports, library):
    return any(_within(each, [library]) for each in imports)


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_do_no_io(name):
    """Time, randomness and answers from outside arrive as arguments."""
    assert {each for each in _imports(MODULES[name], types=False) if _within(each, IMPURE)} == set()


@pytest.mark.parametrize("package", ["infra", "scripts"])
def test_no_module_hides_one_of_the_standard_library(package):
    """`main: infra` puts that folder first on the path, so a file platform.py in it would be the standard library's."""
    names = {path.stem for path in (ROOT / package).glob("*.py")}

    assert names & sys.stdlib_module_names == set()
