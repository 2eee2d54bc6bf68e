"""ersatz: the training of large models on accelerators you cannot, or cannot yet, buy."""
