"""The shell environment that goes with the checkout."""

from pathlib import Path

from scripts.toolchain.environment import shell_exports
from scripts.toolchain.layout import Layout

LAYOUT = Layout(checkout=Path("/src/slip way"), cache=Path("/cache/slipway"))


def test_our_tools_come_first_and_our_plugins_last():
    """The vendor's plugins win over ours wherever they are."""
    exports = shell_exports(LAYOUT, {"PATH": "/usr/bin:/bin"}, own_plugins=True)

    assert exports == (
        "export PATH='/src/slip way/.venv/bin:/cache/slipway/bin:/usr/bin:/bin:/cache/slipway/plugins'\n"
        "export VIRTUAL_ENV='/src/slip way/.venv'\n"
        "export PULUMI_SKIP_UPDATE_CHECK=1\n"
        "export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=1\n"
    )


def test_evaluating_twice_changes_nothing():
    """PATH does not grow with every evaluation."""
    twice = "/src/slip way/.venv/bin:/cache/slipway/bin:/bin:/cache/slipway/plugins"

    assert shell_exports(LAYOUT, {"PATH": twice}, own_plugins=True).startswith(f"export PATH='{twice}'\n")


def test_the_vendor_s_plugins_may_be_downloaded():
    """Where the vendor's host is there, ours stay off PATH and the engine may fetch what it lacks."""
    exports = shell_exports(LAYOUT, {"PATH": "/bin"}, own_plugins=False)

    assert "plugins" not in exports
    assert "ACQUISITION" not in exports
