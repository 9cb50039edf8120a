"""Saying what an answer is."""
