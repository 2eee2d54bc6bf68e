"""The fleet on its clock: decisions carried out, outages, what a scheduler sees."""
