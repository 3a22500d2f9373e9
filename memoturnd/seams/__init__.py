"""The protocols between the engine and the world: store, leases, catalog, clock, executor."""
