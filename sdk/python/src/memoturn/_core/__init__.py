"""What the two clients share: pure decisions, without I/O."""
