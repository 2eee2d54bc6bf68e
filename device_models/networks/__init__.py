"""Links, fabrics and the groups that talk over them: rates, collectives, faults."""
