"""Devices, nodes, links and software stacks: described, read, checked, and seen by rules."""
