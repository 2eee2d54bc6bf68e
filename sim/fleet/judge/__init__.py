"""What a log says of a scheduler: rules kept, promises kept, figures."""
