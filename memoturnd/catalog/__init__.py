"""Catalogs: which databases and branches exist."""
