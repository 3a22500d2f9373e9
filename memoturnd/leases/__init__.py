"""Lease services: who may write a branch."""
