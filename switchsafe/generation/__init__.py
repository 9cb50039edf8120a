"""Generating in a mode."""
