"""What strangers wrote is read here, and what may be shown is decided here."""
