"""Starting the ranks of an emulation: what was asked, the processes, the tools on their PATH."""
