"""What runs will cost: hours of devices, memory and wall time, as measured earlier, calibrated, or counted."""
