"""A purchase plan lived through: orders, machines that fail, shocks, chance."""
