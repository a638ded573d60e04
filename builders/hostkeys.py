"""The machine's final SSH host key: made on the machine, then alone in use.

Two steps, each safe to repeat, so that a crash between them locks nobody out: the key that travelled in user_data stays
in use until the caller has put the final one on record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builders.errors import RemoteCommandFailed

if TYPE_CHECKING:
    from builders.ssh import Connection

FINAL_KEY = "/etc/ssh/slipway_host_ed25519_key"
_DROP_IN = "/etc/ssh/sshd_config.d/00-slipway.conf"
_TRIES = 20  # half a second apart

_MAKE = f"""\
set -e; key={FINAL_KEY}
[ -s "$key" ] && ssh-keygen -y -f "$key" > /dev/null || {{
  rm -f "$key" "$key.pub" "$key.new" "$key.new.pub"
  ssh-keygen -q -t ed25519 -N '' -C slipway -f "$key.new"
  mv "$key.new.pub" "$key.pub"; mv "$key.new" "$key"
}}
ssh-keygen -y -f "$key"
"""

# A restart, not a reload: it returns when the new key is being served. Sessions outlive it. cloud-init may be writing
# sshd's configuration at this moment, and truncates a file before it writes it, so what sshd makes of it is asked again.
_RETIRE = f"""\
set -e; key={FINAL_KEY}; conf={_DROP_IN}
ssh-keygen -y -f "$key" > /dev/null
changed=
[ "$(cat "$conf" 2> /dev/null)" = "HostKey $key" ] || {{ echo "HostKey $key" > "$conf"; changed=1; }}
tries=0 served=
until said=$(/usr/sbin/sshd -T 2>&1) && served=$(echo "$said" | grep '^hostkey ') && [ "$served" = "hostkey $key" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt {_TRIES} ] || {{
    [ -z "$changed" ] || rm -f "$conf"
    if [ -n "$served" ]; then echo "sshd would serve:" $served >&2; else echo "$said" | tail -n 3 >&2; fi
    exit 1
  }}
  sleep 0.5
done
old=$(find /etc/ssh -maxdepth 1 -name 'ssh_host_*')
[ -z "$changed$old" ] || systemctl restart ssh.service
[ -z "$old" ] || rm -f /etc/ssh/ssh_host_*
"""


def make_final(connection: Connection) -> str:
    """Make the final host key if it is missing and return its public line; sshd goes on as before."""
    kind, base64 = connection.run(_MAKE, alone=True).split()[:2]
    return f"{kind} {base64}"


def retire_bootstrap(connection: Connection) -> None:
    """Let sshd serve the final key only, and remove every other host key from the disk; this connection lives on."""
    try:
        connection.run(_RETIRE, alone=True)
    except RemoteCommandFailed as error:
        raise RemoteCommandFailed(
            f"node {connection.node}: the bootstrap host key could not be retired ({error.stderr.strip()})",
            exit_status=error.exit_status,
            stderr=error.stderr,
            hint="the machine still answers with its old key; mend its /etc/ssh and run `slipway up` again",
        ) from error
