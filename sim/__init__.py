"""What happens: from a scenario through a step and a job to money."""
