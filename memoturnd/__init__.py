"""Memoturn's data-plane node: hosts profile databases, ships them to object storage, serves the HTTP API."""

__version__ = "0.1.0"
