"""What is on offer: dated prices, supply, planning defaults."""
