"""The operations of `models.ops` in the formulations that are fast on a GPU."""
