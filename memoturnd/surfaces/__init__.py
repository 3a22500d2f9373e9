"""What a profile can do: memories, recall, key-values, turns, SQL."""
