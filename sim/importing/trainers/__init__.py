"""Trainers of Hugging Face and DeepSpeed, as scenarios."""
