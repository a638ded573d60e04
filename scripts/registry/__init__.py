"""A registry's tags: platforms are merged into them, they are looked at, backed up, restored and taken away.

To be read in this order; each module needs those before it alone.

- What there is, as values: `errors`, `references`, `platforms`, `manifests`.
- What travels: `exchange`. A protocol is a generator of batches of requests, and knows no socket.
- The merge: `records`, `untag`, `sources`, `merge`. docs/merge.md tells why.
- Beside it: `inspection`, `backup`, `lag`, `maintenance`, `mode`.
- The way to a registry: `login`, `client` (the one HTTP door), `credentials`, `lock`, `connection`.
- The commands: `output`, `cli`, and what makes a program of them: `archive`.

The package `collection` frees what no tag needs.
"""
