"""How sure an answer is: intervals from errors that were made on what is like it."""
