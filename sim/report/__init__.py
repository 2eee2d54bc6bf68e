"""What a verb says: a module per verb, over pictures."""
