"""A cluster of real processes, faults, and what must hold under them."""
