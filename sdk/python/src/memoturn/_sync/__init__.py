# Made of _async/__init__.py by scripts/unasync: change that one.
"""The synchronous client, of which `scripts/unasync` makes the synchronous one."""
