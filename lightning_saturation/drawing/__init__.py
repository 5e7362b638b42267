"""What every picture and every text table shares."""
