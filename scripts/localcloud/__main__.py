"""The command: `python -m scripts.localcloud up | down | status | env | reset | host | cluster`."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import shlex
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.localcloud import cgroups, cluster, instance, kubernetes, machines, network, nspawn, preflight
from scripts.localcloud.commands import CommandFailed
from scripts.localcloud.hypervisor import Hypervisor, MachineFailed, NoMachines
from scripts.localcloud.settings import DEFAULT_TOKEN, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COMMAND = "python -m scripts.localcloud"
DEFAULT_STATE = Path("/var/lib/slipway/localcloud")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 failed, 2 usage."""
    options = _parser().parse_args(argv)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        code = verb(options)
        if sys.stdout:  # it may have been closed from the beginning
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (preflight.HostUnfit, CommandFailed, MachineFailed, OSError) as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def up(options: argparse.Namespace) -> int:
    """Start the local cloud, or say that it is up."""
    with _to_start(options):
        running = instance.load(options.state)
        if running and instance.answers(running):
            _describe(running, "is up already", options.state)
        else:
            _start(options)
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the server and every machine, and remove all that is on the host; records and disks stay."""
    preflight.check_linux()
    if _has_machines(options.state):
        preflight.check_root()
    with instance.locked(options.state) if instance.is_ours(options.state) else nullcontext():
        _stop(options.state)
    if owner := instance.other_owner(options.state):
        print(f"note      another one is on this host: {_command('down', owner)}")
    return 0


def reset(options: argparse.Namespace) -> int:
    """Take everything down, forget all records and disks, and start again."""
    with _to_start(options):
        _stop(options.state)
        instance.erase(options.state)
        _start(options)
    return 0


def status(options: argparse.Namespace) -> int:
    """Show what runs; exit code 1 when the API does not answer."""
    preflight.check_linux()
    if options.state.exists() and not os.access(options.state, os.R_OK):
        preflight.check_root()
    running = instance.load(options.state)
    healthy = bool(running and instance.answers(running))
    found = _machines(options.state)
    owner = instance.other_owner(options.state)
    hosts = [] if owner else network.hosts()
    kubeconfig = cluster.kubeconfig(options.state) if cluster.running() and not owner else None
    report = {
        "up": healthy,
        "endpoint": running.endpoint if running else None,
        "control": f"http://127.0.0.1:{running.control_port}" if running else None,
        "pid": running.pid if running else None,
        "state": str(options.state),
        "machines": found,
        "test_hosts": hosts,
        "kubeconfig": str(kubeconfig) if kubeconfig else None,
    }
    if options.format == "json":
        print(json.dumps(report, indent=2))
        return 0 if healthy else 1
    if running:
        _describe(running, "is up" if healthy else "does not answer", options.state)
    else:
        print(f"local cloud is down (start it: {_command('up', options.state)})")
    for one in found:
        power = f"running, pid {one['pid']}" if one["pid"] else "off"
        addresses = " ".join(filter(None, (one["ipv4"], one["ipv6_network"])))
        print(f"machine   {one['id']} {one['name']} {one['architecture']} {power} {addresses}")
    for name in hosts:
        print(f"test host {name} (ip netns exec {name} COMMAND)")
    if kubeconfig:
        print(f"cluster   {kubernetes.NODE} {kubernetes.ADDRESS} (export KUBECONFIG={kubeconfig})")
    if owner:
        print(f"note      another one is on this host: {_command('status', owner)}")
    return 0 if healthy else 1


def env(options: argparse.Namespace) -> int:
    """Print the lines that point every Hetzner tool at the local cloud."""
    running = instance.load(options.state)
    endpoint = running.endpoint if running else f"http://127.0.0.1:{options.port}/v1"
    print(f"export HCLOUD_ENDPOINT={endpoint}\nexport HCLOUD_TOKEN={DEFAULT_TOKEN}")
    return 0


def host(options: argparse.Namespace) -> int:
    """Make a test host: a network namespace with an address among the servers."""
    preflight.check_linux()
    preflight.check_root()
    if network.HUB not in network.namespaces():
        raise preflight.HostUnfit(f"the local cloud has no network yet: {_command('up', options.state)}")
    namespace = network.add_host(options.name, options.ipv4, tuple(options.also))
    print(f"{namespace}: {options.ipv4} {network.host_ipv6(options.ipv4)} {' '.join(options.also)}".rstrip())
    print(f"next      ip netns exec {namespace} COMMAND")
    return 0


def start_cluster(options: argparse.Namespace) -> int:
    """Start a Kubernetes of one node among the servers, or say that it is ready; it ends with `down`."""
    preflight.check_linux()
    preflight.check_root()
    if network.HUB not in network.namespaces():
        raise preflight.HostUnfit(f"the local cloud has no network yet: {_command('up', options.state)}")
    if owner := instance.other_owner(options.state):
        raise preflight.HostUnfit(f"the local cloud of this host is another: {_command('cluster', owner)}")
    preflight.check_tools()
    began = time.monotonic()
    with instance.locked(options.state):
        booted = cluster.start(options.state, cluster.Parts(cache=_cache()))
        cluster.wait_ready(options.state)
    took = f"after {time.monotonic() - began:.0f} s" if booted else "already"
    print(f"cluster is ready {took} ({kubernetes.NODE}, {kubernetes.ADDRESS})")
    print(f"images    {_cache() / 'cluster/images.json'}")
    print(f"next      export KUBECONFIG={cluster.kubeconfig(options.state)}")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Be the API server; `up` starts this in the background."""
    from scripts.localcloud import server  # noqa: PLC0415 - the other verbs need not load a web server

    settings = Settings(state=options.state, port=options.port, control_port=options.control_port)
    hypervisor: Hypervisor = NoMachines()
    metadata = None
    if not options.api_only:
        network.open_hub()
        hypervisor = machines.Machines(options.state, _cache() / "machines")
        metadata = network.metadata_socket()
    server.run(settings, hypervisor, metadata)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description="A Hetzner Cloud on this host, with real machines.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    defaults = Settings()

    def add(
        name: str, verb: Callable[[argparse.Namespace], int], example: str, *, shown: bool = True
    ) -> argparse.ArgumentParser:
        summary = (verb.__doc__ or "").strip()
        listed: dict[str, Any] = {"help": summary} if shown else {}
        parser = verbs.add_parser(
            name,
            **listed,
            description=summary,
            epilog=f"example: {example}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        parser.set_defaults(verb=verb)
        parser.add_argument(
            "--state", type=_folder, default=DEFAULT_STATE, metavar="DIR", help="where records and disks are kept"
        )
        return parser

    def add_server(name: str, verb: Callable[[argparse.Namespace], int], example: str, *, shown: bool = True) -> None:
        parser = add(name, verb, example, shown=shown)
        parser.add_argument("--port", type=_port, default=defaults.port, help="port of the API")
        parser.add_argument(
            "--control-port",
            type=_port,
            default=defaults.control_port,
            metavar="PORT",
            help="port for faults, stock and the clock",
        )
        parser.add_argument("--api-only", action="store_true", help="no machines and no networks, only their records")

    add_server("up", up, f"{COMMAND} up --port 8765")
    add("down", down, f"{COMMAND} down")
    add("status", status, f"{COMMAND} status --format json").add_argument(
        "--format", choices=("table", "json"), default="table", help="how to show it"
    )
    add("env", env, f'eval "$({COMMAND} env)"').add_argument(
        "--port", type=_port, default=defaults.port, help="port of the API when it is down"
    )
    add_server("reset", reset, f"{COMMAND} reset")
    test_host = add("host", host, f"{COMMAND} host registry 198.51.100.2 --also 10.99.0.2/32")
    test_host.add_argument("name", type=_host_name, metavar="NAME", help="the namespace is slipway-NAME")
    test_host.add_argument("ipv4", type=_host_ipv4, metavar="IPV4", help="198.51.100.2 to 198.51.100.7")
    test_host.add_argument(
        "--also",
        action="append",
        default=[],
        type=_address,
        metavar="CIDR",
        help="one more address that is routed to it (a /32)",
    )
    add("cluster", start_cluster, f"{COMMAND} cluster")
    add_server("serve", serve, f"{COMMAND} serve", shown=False)
    return parser


@contextmanager
def _to_start(options: argparse.Namespace) -> Iterator[None]:
    """Hold the state folder of a local cloud that this user may start on this host."""
    preflight.check_linux()
    if not options.api_only:
        preflight.check_root()
        if owner := instance.other_owner(options.state):
            raise preflight.HostUnfit(f"another local cloud is on this host: {_command('down', owner)}")
    preflight.check_state(options.state)
    with instance.locked(options.state):
        yield


def _start(options: argparse.Namespace) -> None:
    missing: tuple[str, ...] = ()
    if not options.api_only:
        preflight.check_tools()
        missing = preflight.check_images(_cache() / "machines")
        preflight.check_network()
    instance.stop(options.state)
    preflight.check_port(options.port, "--port")
    preflight.check_port(options.control_port, "--control-port")
    launched = instance.launch(
        options.state, port=options.port, control_port=options.control_port, api_only=options.api_only
    )
    _describe(launched, "is up", options.state)
    for name in missing:
        print(f"note      no {name} machine image: {name} servers will fail (run scripts/setup)")


def _has_machines(state: Path) -> bool:
    """Tell whether something of a state folder may be on this host beside its server: an earlier one may have left it."""
    running = instance.load(state)
    return not (running and running.api_only) or instance.owner() == state


def _stop(state: Path) -> None:
    has_machines = _has_machines(state)
    instance.stop(state)
    if has_machines:
        instance.sweep(state)
    print("local cloud is down")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is a number from 1 to 65535")
    return int(text)


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("no folder is named")
    return Path(text).absolute()


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*", text) or len(text) > 13 or text in ("hub", "host"):
        raise argparse.ArgumentTypeError(f"{text!r}: lower-case letters and digits, 13 at most, not hub or host")
    return text


def _host_ipv4(text: str) -> str:
    if text not in {str(network.IPV4[number]) for number in network.TEST_HOSTS}:
        raise argparse.ArgumentTypeError(f"{text!r}: test hosts have 198.51.100.2 to 198.51.100.7")
    return text


def _address(text: str) -> str:
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if interface.network.prefixlen != 32:
        raise argparse.ArgumentTypeError(f"{text!r}: one address, such as 10.99.0.2/32")
    return text


def _cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "slipway"


def _describe(running: instance.Instance, what: str, state: Path) -> None:
    kind = "API only, no machines" if running.api_only else "API and machines"
    print(f"local cloud {what} ({kind}, pid {running.pid})")
    print(f"endpoint  {running.endpoint}")
    print(f"control   http://127.0.0.1:{running.control_port}")
    print(f'next      eval "$({_command("env", state)})"')


def _command(verb: str, state: Path) -> str:
    """Write a command for the user to paste."""
    return f"{COMMAND} {verb}" + ("" if state == DEFAULT_STATE else f" --state {shlex.quote(str(state))}")


def _machines(state: Path) -> list[dict[str, Any]]:
    folders = sorted((state / "machines").glob("*/spec.json"))
    specs = [machines.load_spec(path.parent) for path in folders]
    return [
        {
            "id": spec.id,
            "name": spec.name,
            "architecture": nspawn.IMAGES[spec.architecture],
            "pid": cgroups.init_pid(spec.id),
            "ipv4": spec.ipv4,
            "ipv6_network": spec.ipv6_network,
        }
        for spec in specs
    ]


if __name__ == "__main__":
    sys.exit(main())
