"""The gateway: sends each request to the node that owns what it is about."""
