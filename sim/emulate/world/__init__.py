"""What a script sees of the other ranks: process groups, collectives, gradient buckets."""
