"""A reader of launch scripts: what a shell would hand to the trainer, without a shell."""
