"""L1 at its fastest: blocks from the matrices of their layers, and a walk over constants."""
