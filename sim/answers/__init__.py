"""What a question gives: its records, its report and why it may be infeasible, a module per verb."""
