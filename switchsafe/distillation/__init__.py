"""Triplets from the user's own model: one request asks for all behaviours of a prompt at once (arXiv 2508.14904, section 3.1)."""
