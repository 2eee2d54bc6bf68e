"""What a layout takes and holds at least: bounds for all layouts at once, and closer ones for one."""
