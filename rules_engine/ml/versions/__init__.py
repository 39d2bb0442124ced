"""Versions of what was fitted, kept as files."""
