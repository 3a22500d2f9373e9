"""Registers the server in the configuration files of MCP clients, and leaves everything else in them as it was."""
