"""Everything that ersatz knows by name: shelves of devices, models, rules and so on."""
