"""The control plane: the directory of tenants, namespaces and databases, who may use them, and how much."""
