"""Memoturn as an MCP server: memory tools, resources and prompts for any model that speaks the protocol.

`memoturn mcp` serves one client over stdio, `memoturn mcp --http` many over streamable HTTP; both need the
extra `memoturn[mcp]`. Nothing here is imported by the rest of the package.
"""
