"""Implementations of the embedder seam (memoturnd.seams.embedder), and what stands around them."""
