"""What a kernel is, which operation it belongs to, and how long it takes on a device."""
