"""Readers, one for each layout of labels: see `importers.reader`."""
