"""Other people's evaluation harnesses, with a mode: lm-evaluation-harness and Inspect (`switchsafe[harness]`)."""
