"""A layout on machines: rank groups, placement, network, pipeline schedules, memory."""
