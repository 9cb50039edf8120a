"""What runs on Hugging Face Spaces."""
