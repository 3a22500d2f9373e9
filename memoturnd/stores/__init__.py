"""Object stores: local directory, memory, and a wrapper that injects faults."""
