"""Examples: each is a package that runs by `python -m examples.NAME`, with a README of its own."""
