"""The commands that run where the registry's files are: sh with what busybox has, as the registry's own image is Alpine.

The working folder is the storage's docker/registry/v2. What they print is read by store.py, sweep.py and quiet.py.
"""

from __future__ import annotations

LIST = """\
set -u
echo =now
date +%s
if [ -d repositories ]; then
	echo =folders
	find repositories -name '*
*' -exec sh -c 'echo "the name of a file has a line break: $(echo "$1" | head -n 1)..." >&2; exit 1' sh {} + -o \\
		-type d \\( -name '_*' -o -path '*/_manifests/tags' -o -path '*/_manifests/revisions' \\
		-o \\( -path '*/_manifests/tags/*' ! -path '*/_manifests/tags/*/*' \\) \\) -print || exit 1
	echo =links
	find repositories -name _uploads -prune -o -type f -name link -exec stat -c '%s %Y %n' {} + || exit 1
	echo =contents
	find repositories -type f -name link \\( -path '*/_manifests/revisions/*' -o -path '*/current/link' \\
		-o \\( -path '*/_layers/*' ! -path '*/_layers/sha256/*' \\) \\) \\
		-exec grep -H '' {} +
	echo =uploads
	find repositories -type f -path '*/_uploads/*' -exec stat -c '%Y %n' {} + 2>/dev/null
fi
if [ -d blobs ]; then
	echo =blobs
	find blobs -type f -name data -exec stat -c '%s %Y %n' {} + || exit 1
fi
echo =end
"""
"""Everything about the storage but the content of manifests."""

READ = """\
head -c "$1" | tr '\\n' '\\0' | xargs -0 cat --
"""
"""The files that stdin names, one after the other; $1 is the number of bytes of stdin, whose end is not seen."""

# The shell's own `read` looks at a process without starting another; it drops the NULs between arguments.
SERVER = """\
for each in /proc/[0-9]*; do
	line= && { read -r line <"$each/cmdline"; } 2>/dev/null
	case $line in *serve*) ;; *) continue ;; esac
	[ "$(tr '\\0' '\\n' 2>/dev/null <"$each/cmdline" | sed -n 2p)" = serve ] || continue
	[ -z "$1" ] || tr '\\0' '\\n' 2>/dev/null <"$each/environ" | grep -qxF -e "$1" || continue
	server=${each#/proc/}
	break
done
[ -n "${server:-}" ] || { echo 'no registry runs here' >&2; exit 3; }
echo =pid
echo "$server"
echo =now
date +%s
echo =arguments
tr '\\0' '\\n' <"/proc/$server/cmdline" || exit 1
echo =environment
tr '\\0' '\\n' <"/proc/$server/environ" || exit 1
echo =configuration
cat -- "$(tr '\\0' '\\n' <"/proc/$server/cmdline" | sed -n 3p)" || exit 1
echo
echo =end
"""
"""The registry's process: what it was started with, and its configuration. $1 is a line that its environment must have, if any."""

_GUARD = """\
refuse() {
	echo "$2" >&2
	head -c "$1" >/dev/null 2>&1
	exit 4
}
tr '\\0' '\\n' <"/proc/$1/environ" | grep -qx "SLIPWAY_READONLY_UNTIL=$2" || refuse "$3" 'the registry is not read-only any more'
left=$(($2 - $(date +%s) - 5))
[ "$left" -gt 0 ] || refuse "$3" 'no time is left before the registry becomes writable'
"""
"""Nothing is changed but under the mode that was asked for ($2, its expiry), in the process that has it ($1).

Where $3 bytes of stdin were sent they are read all the same: Kubernetes tells no end of a command that left some unread.
"""

REMOVE = f"""{_GUARD}head -c "$3" | tr '\\n' '\\0' | timeout "$left" xargs -0 rm -rf --
"""
"""Remove the folders and files that stdin names, $3 bytes of it, in that order.

Each line is one name, whatever is in it: xargs itself would take `app copy` for two.
"""

CLAIMED = """\
for each in "repositories/$1"/_manifests/tags/* "repositories/$1"/[!_]*; do
	if [ -e "$each" ]; then echo "$each"; fi
done
"""
"""What a repository of the name $1 has that no collection puts there: tags, and repositories below it."""

LINK = f"""{_GUARD}head -c "$3" | while read -r digest folder; do
	mkdir -p "$folder" && printf %s "$digest" >"$folder/link" || {{ cat >/dev/null; exit 1; }}
done
"""
"""Write links: each line of stdin, $3 bytes of it, is what a link holds, and its folder."""

HOLD = f"""{_GUARD}folder=repositories/$4/_manifests
mkdir -p "repositories/$4/_layers" "$folder/tags" "$folder/revisions/sha256/$5" "$(dirname "$6")" &&
	head -c "$3" >"$6" && printf %s "sha256:$5" >"$folder/revisions/sha256/$5/link"
"""
"""Store a manifest, $3 bytes of stdin, in the repository $4: $5 is its sha256, $6 the file of its content."""

COLLECT = f"""{_GUARD}name=$(tr '\\0' '\\n' <"/proc/$1/cmdline" | sed -n 1p)
file=$(tr '\\0' '\\n' <"/proc/$1/cmdline" | sed -n 3p)
{{
	cat "/proc/$1/environ"
	printf '%s\\0' timeout "$left" "$name" garbage-collect $3 "$file"
}} | xargs -0 -x -s 120000 env -i
code=$?
[ "$code" = 0 ] || [ "$(date +%s)" -lt "$(($2 - 5))" ] || echo 'it did not end within --stop-limit' >&2
exit "$code"
"""
"""The registry's own collection, with the registry's own program, configuration and environment; $3 is --dry-run or nothing."""

STRAY = """\
for each in /proc/[0-9]*; do
	line= && { read -r line <"$each/cmdline"; } 2>/dev/null
	case $line in *garbage-collect*) ;; *) continue ;; esac
	[ "$(tr '\\0' '\\n' 2>/dev/null <"$each/cmdline" | sed -n 2p)" = garbage-collect ] || continue
	tr '\\0' '\\n' 2>/dev/null <"$each/cmdline" | grep -qxF -e "$1" || continue
	kill -KILL "${each#/proc/}"
	while kill -0 "${each#/proc/}" 2>/dev/null && ! grep -q '^State:.Z' "$each/status" 2>/dev/null; do sleep 1; done
	echo "${each#/proc/}"
done
"""
"""End the collections that still run with the configuration $1, and wait until they have ended."""

METRICS = """\
wget -q -O - "http://$1/metrics" 2>/dev/null || curl -fsS "http://$1/metrics"
"""
"""What the registry counts, at its debug address $1."""

FREE = """\
df -Pk . | sed 1d | tr -s ' ' | cut -d ' ' -f 4
"""
"""How much is free on the storage's disk, in KiB."""
