"""From triplets to a trained adapter."""
