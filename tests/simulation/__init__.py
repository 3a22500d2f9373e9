"""Several nodes, their store and their clients on one virtual clock, all from one seed (docs/testing.md)."""
