"""Rules on export, import and use: read as data, put to a device, a place, a buyer and a day."""
