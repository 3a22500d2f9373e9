"""What stands behind the catalog seam (memoturnd.seams.catalog)."""
