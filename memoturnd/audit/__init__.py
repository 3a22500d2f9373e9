"""The audit stream: who did what, in order, and so that nobody can change it unseen."""
