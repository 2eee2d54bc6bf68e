"""Stand-ins for compiled extensions that are not here: shape, FLOPs, bytes and backward."""
