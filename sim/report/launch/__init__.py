"""What is said of launch files, in and out."""
