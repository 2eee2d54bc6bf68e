"""What a script sees of the virtual device: torch.cuda or torch.npu, time, files, threads."""
