"""From the write-ahead log to object storage and back."""
