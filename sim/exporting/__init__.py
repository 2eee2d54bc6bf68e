"""The way back: a scenario's model and layout as flags and configurations of trainers."""
