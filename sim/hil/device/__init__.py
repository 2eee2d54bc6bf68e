"""The attached device: what it is, how its time is told, and how each kernel runs on it."""
