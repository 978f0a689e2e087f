"""Segments of a picture in the formats of other tools."""
