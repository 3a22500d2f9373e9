"""Routes of the control plane, mounted in every node."""
