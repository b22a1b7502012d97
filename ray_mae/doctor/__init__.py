"""Is a machine or a cluster fit for a run: facts of each node, and what they mean."""
