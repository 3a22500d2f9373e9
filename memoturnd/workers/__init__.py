"""One machine, many cores: `memoturnd --workers N` runs N node processes behind a gateway on one port."""
