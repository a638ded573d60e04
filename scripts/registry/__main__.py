"""`python -m scripts.registry`, and what the one-file program runs."""

from scripts.registry.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
