"""What the traces of an emulation give: ranks side by side, the step, other devices, files for others."""
