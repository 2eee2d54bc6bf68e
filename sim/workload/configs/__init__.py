"""Hugging Face configurations as models: one key is read, said, or refused, none is dropped."""
