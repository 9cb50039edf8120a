"""Triplets, and the mixed corpus that training sees."""
