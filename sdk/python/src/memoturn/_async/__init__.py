"""The asynchronous client, of which `scripts/unasync` makes the synchronous one."""
