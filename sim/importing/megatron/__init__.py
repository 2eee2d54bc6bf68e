"""The flags of Megatron and its relatives, as a scenario."""
