"""What the verbs say of measurements: validation, memory of published runs, calibration, anchors."""
