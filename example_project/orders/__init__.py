"""Orders: a domain app with the house's rooms, to read from the door inward."""
