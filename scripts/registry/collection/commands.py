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
	find repositories -type d \\( -name '_*' -o -path '*/_manifests/tags' -o -path '*/_manifests/revisions' \\
		-o \\( -path '*/_manifests/tags/*' ! -path '*/_manifests/tags/*/*' \\) \\) || exit 1
	echo =links
	find repositories -name _uploads -prune -o -type f -name link -exec stat -c '%s %Y %n' {} + || exit 1
	echo =contents
	find repositories -type f -name link \\( -path '*/_manifests/revisions/*' -o -path '*/current/link' \\) \\
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
head -c "$1" | xargs cat --
"""
"""The files that stdin names, one after the other; $1 is the number of bytes of stdin, whose end is not seen."""
